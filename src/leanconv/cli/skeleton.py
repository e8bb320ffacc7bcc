"""The command that looks at where kernels have their weight: skeleton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from leanconv.cli.options import DEFAULT_BUILD, Build
from leanconv.cli.output import bar, show
from leanconv.cli.records import Record, digest
from leanconv.cli.robustness import USUAL
from leanconv.cli.sight import DEFAULT_SIGHT, Sight, networks, specimens
from leanconv.cli.training import resumable
from leanconv.cli.words import Numbers, Words
from leanconv.files import make_folder, write, write_csv

if TYPE_CHECKING:
    from leanconv.measure import KernelSkeleton, ZeroingCurves
    from leanconv.table import Table
    from leanconv.tasks.specimen import Specimen


def skeleton(
    *models: str,
    layers: Words = (),
    kernel_size: int | None = None,
    zeroing: bool = True,
    sparsities: Numbers = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4),
    seeds: int = 3,
    sight: Sight = DEFAULT_SIGHT,
    build: Build = DEFAULT_BUILD,
    out: Path = Path("runs/skeleton"),
) -> None:
    """Says where networks' kernels have their weight, and what accuracy is lost when it is set to 0 there.

    The skeleton of a kernel is its central row with its central column. Asymmetric convolutions strengthen it in
    training; their kernels are taken as one. Repeated, the same command goes on where it was interrupted.

    For example:

        leanconv skeleton runs/compare/dense/seed-0 runs/compare/asymmetric/seed-0
        leanconv skeleton resnet18 resnet50 --pretrained --no-zeroing
        leanconv skeleton runs/dense --layers "layer3.*" --sparsities 0.2 0.4 --seeds 5

    Args:
        models: Folders of finished trainings, checkpoints, or names that `leanconv models` knows.
        layers: Layers to look at, or patterns as in a shell; by default all.
        kernel_size: Size of their kernels; by default the most frequent.
        zeroing: Test the networks with weights set to 0, too.
        sparsities: Shares of each layer's weights that are set to 0, where the region has as many.
        seeds: Draws of those weights, with seeds from 0.
        out: Folder for the pictures, the numbers and the report.
    """
    from leanconv import measure

    chosen = layers or None
    if zeroing:
        found = specimens(models, sight, build, usual=USUAL, labelled=True)
        shown = {specimen.name: specimen.network for specimen in found}
    else:
        shown = {name: network for name, (network, _) in networks(models, build).items()}
    skeletons = {
        name: measure.kernel_skeleton(network, chosen, kernel_size=kernel_size) for name, network in shown.items()
    }
    make_folder(out)
    write_csv(out / "magnitudes.csv", ["model", "layer", "row", "column", "magnitude"], magnitudes(skeletons))
    show(summary(skeletons))
    curves: dict[str, ZeroingCurves] = {}
    if zeroing:
        with resumable():
            curves = tested([in_memory(specimen) for specimen in found], chosen, kernel_size, sparsities, seeds, out)
        show(*(line for name, each in curves.items() for line in (name, each)))
    show(f"report: {write_page(skeletons, curves, out)}")


def tested(
    found: Sequence[Specimen],
    layers: Sequence[str] | None,
    kernel_size: int | None,
    sparsities: Sequence[float],
    seeds: int,
    out: Path,
) -> dict[str, ZeroingCurves]:
    """The curves of each network, whose points are in zeroing.csv as soon as they are tested."""
    from leanconv import measure

    digests = {specimen.name: digest(specimen, layers, kernel_size) for specimen in found}
    record = Record(out / "zeroing.csv", digests)
    curves = {}
    for specimen in found:
        name, batches = specimen.name, specimen.batches(100)
        with bar(f"zeroing {name}") as step:
            curves[name] = measure.zeroing_curves(
                specimen.network,
                partial(measure.accuracy, batches=batches),
                sparsities=sparsities,
                seeds=range(seeds),
                layers=layers,
                kernel_size=kernel_size,
                known=record.known(name),
                found=partial(record.add, name),
                progress=step,
            )
    return curves


def in_memory(specimen: Specimen) -> Specimen:
    """The same with its images read, for they are gone through many times."""
    from leanconv.tasks.data.images import ArrayImages

    images = specimen.images
    return replace(
        specimen, images=ArrayImages(images.pixels(range(len(images))), images.labels, images.mean, images.std)
    )


def magnitudes(skeletons: Mapping[str, KernelSkeleton]) -> list[tuple[object, ...]]:
    """Each entry of each layer's matrix, with its row and column from 0; the average's layer is called "average"."""
    return [
        (name, layer, row, column, value)
        for name, skeleton in skeletons.items()
        for layer, matrix in [("average", skeleton.average), *((each.name, each.matrix) for each in skeleton.layers)]
        for row, line in enumerate(matrix.tolist())
        for column, value in enumerate(line)
    ]


def summary(skeletons: Mapping[str, KernelSkeleton]) -> Table:
    """One row a network: the shares of its average magnitude; those of each layer are in magnitudes.csv."""
    from leanconv.table import Table

    rows = [
        [name, len(each.layers), f"{each.share('skeleton'):.1%}", f"{each.share('corner'):.1%}"]
        for name, each in skeletons.items()
    ]
    return Table(["model", "layers", "skeleton", "corner"], rows)


def write_page(skeletons: Mapping[str, KernelSkeleton], curves: Mapping[str, ZeroingCurves], out: Path) -> Path:
    """Writes skeleton.png, report.html and, where there are curves, zeroing.png."""
    from leanconv.report.findings import Section, write_findings
    from leanconv.report.pictures import INK, STAND_IN, png, svg
    from leanconv.report.skeleton_plot import lightest_of, magnitude_figure, zeroing_figure
    from leanconv.table import Table

    lightest = lightest_of(skeletons.values())
    write(out / "skeleton.png", png(magnitude_figure(skeletons, lightest=lightest, ink=INK)))
    sections = [
        Section(
            "Average kernel magnitude",
            [
                svg(magnitude_figure({name: each}, lightest=lightest, ink=STAND_IN), f"Kernels of {name}")
                for name, each in skeletons.items()
            ],
            summary(skeletons),
            "Each layer's sum of |weights| over all filters and channels, divided by its largest entry, then averaged "
            f"over the layers. Outlined: the skeleton. Shades from {lightest} to 1.",
        )
    ]
    if curves:
        write(out / "zeroing.png", png(zeroing_figure(curves, ink=INK)))
        tables = {name: each.table() for name, each in curves.items()}
        first = next(iter(tables.values()))
        sections.append(
            Section(
                "Accuracy with weights set to 0, without retraining",
                [
                    svg(zeroing_figure({name: each}, ink=STAND_IN), f"Accuracy of {name}")
                    for name, each in curves.items()
                ],
                Table(
                    ["model", *first.columns],
                    [[name, *row] for name, table in tables.items() for row in table.rows],
                    notes=first.notes,
                ),
                wide=True,
            )
        )
    write_findings(
        out / "report.html",
        command="skeleton",
        title="The skeletons of kernels",
        lead=headline(skeletons, curves),
        sections=sections,
    )
    return out / "report.html"


def headline(skeletons: Mapping[str, KernelSkeleton], curves: Mapping[str, ZeroingCurves]) -> str:
    """Which network has the strongest skeleton, and what it is worth to it."""
    name = max(skeletons, key=lambda name: skeletons[name].share("skeleton"))
    size = len(skeletons[name].average)
    most = ", the most of these networks" if len(skeletons) > 1 else ""
    text = (
        f"{skeletons[name].share('skeleton'):.1%} of the kernel magnitude of {name} lies on the skeleton{most}. "
        f"The skeleton is {(2 * size - 1) / size**2:.1%} of a {size} × {size} kernel."
    )
    if name not in curves:
        return text
    corner, on_skeleton = (
        {share: mean for share, mean, _ in curves[name].curve(region)} for region in ("corner", "skeleton")
    )
    share = max(set(corner) & set(on_skeleton), key=lambda share: abs(corner[share] - on_skeleton[share]))
    return text if not share else (
        f"{text} The regions differ most with {share:.1%} of each layer's weights set to 0: its accuracy is "
        f"{corner[share]:.1%} without those in the corners, {on_skeleton[share]:.1%} without those on the skeleton."
    )
