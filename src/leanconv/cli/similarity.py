"""The command that shows how redundant networks are: similarity."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from leanconv.cli.options import DEFAULT_BUILD, Build
from leanconv.cli.output import bar, show
from leanconv.cli.sight import DEFAULT_SIGHT, Sight, networks, specimens
from leanconv.cli.words import Words
from leanconv.files import make_folder, write, write_csv
from leanconv.table import Table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from leanconv.measure import Reconstruction, Similarity
    from leanconv.report.map_plot import LayerMaps
    from leanconv.tasks.specimen import Specimen

BATCH = 8  # images at once


def similarity(
    *models: str,
    layers: Words = (),
    filters: int = 16,
    kind: Literal["patterns", "maps", "weights"] = "patterns",
    precision: Literal["fp32", "bf16"] = "fp32",
    sight: Sight = DEFAULT_SIGHT,
    build: Build = DEFAULT_BUILD,
    out: Path = Path("runs/similarity"),
) -> None:
    """Shows how alike the filters of networks are, in pictures, tables and a report.

    Filters are compared by what they look for: guided backpropagation, averaged over the images. That takes a backward
    pass for each filter and image: choose few of a large network. The report has the most similar feature maps too,
    and how well a small filter makes one from the other.

    For example:

        leanconv similarity runs/dense runs/tied
        leanconv similarity resnet50 --pretrained --images photos --filters 4 --precision bf16
        leanconv similarity runs/ghost --kind weights --layers "layer1.*" "layer2.*"

    Args:
        models: Names that `leanconv models` knows, "module:callable", "file.py:callable" or checkpoints.
        layers: Paths or shell patterns; by default every convolution with a window.
        filters: Filters compared in a layer, drawn at random; 0 for all. Only for patterns.
        kind: What is compared: the filters' patterns, their feature maps, or their weights, which need no images.
        precision: Numbers to run the networks in.
        out: Folder for the pictures, the numbers and the report.
    """
    if filters < 0:
        raise ValueError(f"filters must be at least 0, got {filters}")
    found: list[Specimen] = []
    if kind == "weights":
        shown = {name: network for name, (network, _) in networks(models, build).items()}
    else:
        found = specimens(models, sight, build)
        shown = {specimen.name: specimen.network for specimen in found}
    make_folder(out)
    similarities: dict[str, Similarity] = {}
    for index, (name, network) in enumerate(shown.items()):
        images = Prepared(found[index], precision) if found else None
        chosen = {"layers": list(layers) or None, "filters": filters or None, "seed": sight.seed}
        with bar(f"comparing {name}") as step:
            similarities[name] = compared(kind, in_precision(network, precision), images, chosen, step)
        write_numbers(similarities, out)
    reconstructions, maps = redundancy(found)
    write_reconstructions(reconstructions, out)
    table = joint_table(similarities)
    show(table, *reconstructions.values(), f"report: {write_page(similarities, table, reconstructions, maps, out)}")


class Prepared:
    """A specimen's images in batches, as numbers of a precision.

    Args:
        specimen: whose.
        precision: "fp32" or "bf16".
    """

    def __init__(self, specimen: Specimen, precision: str) -> None:
        self.batches = specimen.batches(BATCH)
        self.precision = precision

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        for images, _ in self.batches:
            yield images.bfloat16() if self.precision == "bf16" else images


def in_precision(network: nn.Module, precision: str) -> nn.Module:
    """The network, or a copy of it in bfloat16."""
    return copy.deepcopy(network).bfloat16() if precision == "bf16" else network


def compared(kind: str, network: nn.Module, images: Any, chosen: dict[str, Any], step: Any) -> Similarity:
    """The similarity of a kind."""
    from leanconv import measure

    if kind == "weights":
        return measure.weight_similarity(network, chosen["layers"])
    if kind == "maps":
        return measure.map_similarity(network, images, chosen["layers"], progress=step)
    return measure.filter_similarity(network, images, **chosen, progress=step)


def redundancy(found: Sequence[Specimen]) -> tuple[dict[str, Reconstruction], dict[str, LayerMaps]]:
    """How well maps are made from one another, by the network's name, and what the maps look like."""
    import torch

    from leanconv.measure import reconstruction_error
    from leanconv.measure.observing import observe
    from leanconv.report.cam_plot import coloured
    from leanconv.report.map_plot import LayerMaps

    reconstructions, maps = {}, {}
    for specimen in found:
        images = Prepared(specimen, "fp32")
        try:
            with bar(f"reconstructing maps of {specimen.name}") as step:
                made = reconstruction_error(specimen.network, images, progress=step)
        except (TypeError, ValueError) as error:  # not every network has maps where they are looked for
            show(f"no maps of {specimen.name} are shown: {error}")
            continue
        layer = made.pairs[0].layer
        with torch.no_grad():
            (given, *_) = observe(specimen.network, next(iter(images))[:1], [layer])[1][layer]
        reconstructions[specimen.name] = made
        maps[specimen.name] = LayerMaps(coloured(specimen.images.pixels([0])[0]), given[0], made.pairs)
    return reconstructions, maps


def joint_table(similarities: dict[str, Similarity]) -> Table:
    """One network's table, or the mean of each layer, a column a network."""
    if len(similarities) == 1:
        return next(iter(similarities.values())).table()
    names = list(dict.fromkeys(layer.name for each in similarities.values() for layer in each.layers))
    means = {model: {layer.name: layer for layer in each.layers} for model, each in similarities.items()}
    rows = [
        [name, *(f"{layers[name].mean:.3f} ± {layers[name].error:.3f}" if name in layers else "–"
                 for layers in means.values())]
        for name in names
    ]  # fmt: skip
    rows.append(["mean", *(f"{each.mean:.3f}" for each in similarities.values())])
    first = next(iter(similarities.values()))
    notes = [f"Mean cosine similarity of {first.what} in each layer ± its standard error.", *first.notes]
    return Table(["layer", *similarities], rows, notes=notes)


def write_numbers(similarities: dict[str, Similarity], out: Path) -> None:
    """Writes similarity.csv and histogram.csv."""
    layers = [(model, layer) for model, each in similarities.items() for layer in each.layers]
    columns = ["model", "layer", "filters", "of", "mean", "error", "lower quartile", "median", "upper quartile"]
    rows = [[model, layer.name, len(layer.channels), layer.of, layer.mean, layer.error, *layer.quartiles]
            for model, layer in layers]  # fmt: skip
    write_csv(out / "similarity.csv", columns, rows)
    bins = []
    for model, layer in layers:
        shares, edges = layer.histogram()
        cells = zip(edges[:-1].tolist(), edges[1:].tolist(), shares.tolist(), strict=True)
        bins += [[model, layer.name, f"{low:.3g}", f"{high:.3g}", share] for low, high, share in cells]
    write_csv(out / "histogram.csv", ["model", "layer", "from", "to", "share of pairs"], bins)


def write_reconstructions(reconstructions: dict[str, Reconstruction], out: Path) -> None:
    """Writes reconstruction.csv, if there is something to write."""
    columns = ["model", "layer", "source", "target", "cosine", "power", "kernel size", "squared error", "relative"]
    rows = [[model, pair.layer, pair.source, pair.target, pair.similarity, pair.power, size, error, pair.relative(size)]
            for model, made in reconstructions.items() for pair in made.pairs for size, error in pair.errors.items()]
    if rows:
        write_csv(out / "reconstruction.csv", columns, rows)


def write_page(
    similarities: dict[str, Similarity],
    table: Table,
    reconstructions: dict[str, Reconstruction],
    maps: dict[str, LayerMaps],
    out: Path,
) -> Path:
    """Writes report.html, and its pictures as PNG files too."""
    from leanconv.report.findings import Section, write_findings
    from leanconv.report.map_plot import pairs_figure, reconstruction_figure
    from leanconv.report.pictures import INK, STAND_IN, Picture, png, svg_as_drawn
    from leanconv.report.similarity_plot import matrix_figure, middle_layers, similarity_figure

    def drawn(draw: Any, what: Any, file: str, caption: str) -> Picture:
        write(out / f"{file}.png", png(draw(what, ink=INK)))
        return svg_as_drawn(draw(what, ink=STAND_IN), caption)

    what = next(iter(similarities.values())).what
    plots = drawn(similarity_figure, similarities, "similarity", f"Similarity of {what}, of all layers and by layer")
    sections = [Section("How often filters are how alike", [plots], None, "Marks on the axis: the means.", wide=True)]
    if middle := middle_layers(similarities):
        matrices = drawn(matrix_figure, middle, "matrices", "Similarity of each two filters")
        sections.append(Section("A layer from the middle", [matrices], wide=True))
    if reconstructions:
        note = ("The error is that of the best d × d filter that makes the second map of a pair "
                "from the first, over all images.")  # fmt: skip
        pairs = drawn(pairs_figure, maps, "maps", "Feature maps that are most alike")
        errors = drawn(reconstruction_figure, reconstructions, "reconstruction", "Error of one map made from the other")
        sections += [Section("Maps that are alike", [pairs], None, "Of the first image.", wide=True),
                     Section("What a small filter makes of them", [errors], None, note, wide=True)]
    sections.append(Section("Each layer", [], table))
    means = ", ".join(f"{name} {each.mean:.3f}" for name, each in similarities.items())
    write_findings(
        out / "report.html",
        command="similarity",
        title=f"How alike the filters of {' and '.join(similarities)} are",
        lead=f"Mean cosine similarity of {what} over the layers: {means}.",
        sections=sections,
    )
    return out / "report.html"
