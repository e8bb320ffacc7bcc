"""The command that scores detectors by how much instances hide one another: occlusion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leanconv.cli.output import bar, show
from leanconv.cli.words import Numbers, Switch, Words
from leanconv.files import make_folder, write

if TYPE_CHECKING:
    from leanconv.tasks.detection.occlusion import OcclusionStudy

FILE = "predictions.json"
HOW = (
    "The ratio r of an image is the area that its instances share with others, over the area of all its instances: "
    "0 where none touch, 1 where each is covered by others. Crowd regions don't count. Here it is measured on {}. "
    "Hollow marks stand for few images."
)


def occlusion(
    source: str,
    /,
    *,
    predictions: Words,
    shapes: str = "boxes",
    edges: Numbers = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    all_images: Switch = False,
    detections: int = 100,
    out: Path = Path("runs/occlusion"),
) -> None:
    """Scores detectors by how much the instances of an image hide one another.

    For each image, r = overlap area / instance area; then AP and AP75 in bins of r, and on the images from a ratio up.

    For example:

        leanconv occlusion coco:data/coco --predictions dense=runs/a tied=runs/b
        leanconv occlusion masks:nuclei --edges 0 0.02 0.05 0.1 1 --predictions dense=runs/a tied=runs/b
        leanconv occlusion coco:photos,photos.json --all-images --predictions it=found.json

    Args:
        source: Of images with their annotations; the test images count.
        predictions: NAME=FILE.json for each model: a COCO result file, or a folder with predictions.json in it.
        shapes: Measure overlap on boxes or on masks; masks of COCO hardly overlap, as they leave out hidden parts.
        edges: Of the bins of r, ascending from 0 to 1; choose finer ones where instances hardly overlap.
        all_images: Take the training images too, of a source that isn't split into two.
        detections: How many predictions of a category in an image count, those of the highest scores; COCO counts 100.
        out: Folder for the picture, the numbers and the report.
    """
    from leanconv.tasks.detection import CocoScores, open_detection, study_occlusion

    files = named_files(predictions)
    with bar("scoring") as step:
        data = open_detection(source, bad_images="unchecked")
        images = data.whole() if all_images else data.test
        models = {name: CocoScores.load(images, file, detections=detections) for name, file in files.items()}
        study = study_occlusion(models, source=f"{source}: {len(images)} images", shapes=shapes, edges=edges,
                                step=step)
    make_folder(out)
    study.save(out / "occlusion.csv")
    show(study, f"report: {write_page(study, out)}")


def named_files(words: Sequence[str]) -> dict[str, Path]:
    """The file of predictions of each model.

    >>> named_files(["dense=dense.json"])
    {'dense': PosixPath('dense.json')}
    """
    files = {}
    for word in words:
        name, equals, place = word.partition("=")
        if not (name and equals and place) or name in files:
            raise ValueError(f"predictions must be NAME=FILE.json for each model, each name once, got {word!r}")
        path = Path(place).expanduser()
        files[name] = path / FILE if path.is_dir() else path
    return files


def write_page(study: OcclusionStudy, out: Path) -> Path:
    """Writes occlusion.png and report.html."""
    from leanconv.report.findings import Section, write_findings
    from leanconv.report.occlusion_plot import occlusion_figure, panels_of
    from leanconv.report.pictures import INK, STAND_IN, png, svg

    write(out / "occlusion.png", png(occlusion_figure(study, ink=INK)))
    panels = panels_of(study)
    sections = []
    for title, masks in (("Boxes", False), ("Masks", True)):
        pictures = [
            svg(occlusion_figure(study, [panel], ink=STAND_IN), panel.title)
            for panel in panels
            if panel.measure.startswith("mask_") is masks
        ]
        if pictures:
            sections.append(Section(title, pictures, wide=True))
    write_findings(
        out / "report.html",
        command="occlusion",
        title="Detection under occlusion",
        lead=headline(study),
        sections=[*sections, Section("All scores", table=study.table(), note=HOW.format(study.shapes))],
    )
    return out / "report.html"


def headline(study: OcclusionStudy) -> str:
    """How AP75 changes from all images to the most crowded ones of which there are enough."""
    crowded = [group for group in study.thresholds[1:] if not group.few]
    if not crowded:
        return "There are too few images with instances that overlap to say anything."
    last = crowded[-1]
    told = []
    for model in study.models:
        before, after = (100 * group.scores[model]["ap75"] for group in (study.thresholds[0], last))
        told.append(f"{model} from {before:.1f} to {after:.1f}")
    return (
        f"AP75 of the boxes, from all {study.thresholds[0].images} images to the {last.images} with an overlap ratio "
        f"of {last.low:g} or more: {'; '.join(told)}."
    )
