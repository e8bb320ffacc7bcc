"""The command that looks for what is wrong with annotated images: check."""

from __future__ import annotations

from pathlib import Path

from leanconv.cli.output import bar, show
from leanconv.files import make_folder


def check(source: str, /, *, out: Path = Path("runs/check")) -> None:
    """Looks for what is wrong with annotated images, before a training stumbles over it.

    Lists missing and broken files, images that their metadata turn, annotations without image, unknown categories,
    empty boxes and boxes outside the image, masks that don't fit, and what is there twice. Ends with 0 if nothing is
    wrong, with 1 if something is, and with 2 if the source can't be read at all. Images without annotations are listed
    but no mistake.

    For example:

        leanconv check coco:data/coco
        leanconv check coco:photos,photos.json
        leanconv check voc:VOCdevkit/VOC2012
        leanconv check penn-fudan:PennFudanPed

    Args:
        source: coco:FOLDER, coco:IMAGES,FILE.json, voc:FOLDER, penn-fudan:FOLDER or masks:FOLDER.
        out: Folder for problems.csv, the whole list.
    """
    from leanconv.tasks.detection.checking import check as check_source

    with bar("checking") as step:
        found = check_source(source, step=step)
    make_folder(out)
    found.save(out / "problems.csv")
    show(found, f"wrote {out / 'problems.csv'}")
    if not found.fine:
        raise SystemExit(1)
