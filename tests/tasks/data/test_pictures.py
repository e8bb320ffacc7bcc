import numpy as np
import pytest
from PIL import Image

from leanconv.tasks.data.images import UnreadableImage
from leanconv.tasks.data.pictures import open_picture

COLOUR = (200, 100, 50)


@pytest.mark.parametrize(("mode", "colour", "suffix", "expected"), [
    ("RGB", COLOUR, "png", COLOUR),
    ("RGBA", (*COLOUR, 128), "png", COLOUR),
    ("L", 90, "png", (90, 90, 90)),
    ("LA", (90, 10), "png", (90, 90, 90)),
    ("1", 1, "png", (255, 255, 255)),
    ("CMYK", (0, 255, 255, 0), "tif", (255, 0, 0)),
    ("I;16", 0x7F10, "png", (127, 127, 127)),
])
def test_every_form_becomes_rgb(tmp_path, mode, colour, suffix, expected):
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (4, 4), colour).save(path)
    picture = open_picture(path)
    assert picture.mode == "RGB"
    assert picture.getpixel((1, 1)) == expected


def test_a_transparent_palette_becomes_rgb_without_a_warning(tmp_path):
    picture = Image.new("RGB", (4, 4), COLOUR).quantize(4)
    picture.save(tmp_path / "a.png", transparency=bytes([0, 128, 255, 255]))
    assert open_picture(tmp_path / "a.png").getpixel((0, 0)) == COLOUR


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_picture(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


def test_damaged_files_are_named_with_the_reason(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for suffix in ("jpg", "png", "gif", "webp", "tif", "bmp"):
        whole = tmp_path / f"whole.{suffix}"
        Image.fromarray(noise).save(whole)
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        assert open_picture(whole).size == (64, 64)
        with pytest.raises(UnreadableImage, match=rf"cannot read the image .*cut\.{suffix}: \w+"):
            open_picture(cut)


@pytest.mark.parametrize(("content", "reason"), [(b"", "the file is empty"), (b"text", "cannot identify image file")])
def test_what_is_no_image_is_named_with_the_reason(tmp_path, content, reason):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=rf"cannot read the image .*a\.jpg: {reason}$"):
        open_picture(tmp_path / "a.jpg")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableImage, match=r"a\.jpg: .*No such file or directory$"):
        open_picture(tmp_path / "a.jpg")
