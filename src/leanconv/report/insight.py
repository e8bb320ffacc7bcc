"""What a comparison's networks show when they are looked into: how alike their filters are, and where they look."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import torch
from torch import nn

from leanconv.files import write
from leanconv.measure import LayerSimilarity, Similarity, filter_similarity
from leanconv.measure.evidence import Evidence
from leanconv.measure.similarity import layer_widths
from leanconv.report.cam_plot import Look
from leanconv.steps import Step
from leanconv.tasks.checkpoint import info_of, load_model, recipe_of
from leanconv.tasks.comparing import run_folder
from leanconv.tasks.comparison import Comparison
from leanconv.tasks.data.images import ArrayImages, ImageSet
from leanconv.tasks.evaluation import TESTED
from leanconv.tasks.run_folder import MODEL, is_finished
from leanconv.tasks.specimen import Selection, Specimen, sample
from leanconv.tasks.training_recipe import DEFAULT_TASK

FILE = "insight.npz"
SHOWN = 5  # images
LAYERS = 20  # at most
AMOUNTS = ((8, 8), (8, 4), (6, 4), (4, 4), (4, 2), (3, 1))  # filters of a layer, and images for their patterns
WORK = 6e11  # multiply-accumulates that the patterns of one network may take forwards

T = TypeVar("T")


@dataclass(frozen=True)
class Insight:
    """What a trained network shows.

    Args:
        similarity: of its filters' patterns.
        look: at a few test images.
        reasons: why "similarity" or "look" is missing.
    """

    similarity: Similarity | None = None
    look: Look | None = None
    reasons: dict[str, str] = field(default_factory=dict)


def look_into(comparison: Comparison, folder: Path, progress: Step | None = None) -> dict[str, Insight]:
    """Looks into the first network of each operator, and keeps in its run folder what is found.

    What is kept is read. Whatever goes wrong becomes the reason why something is missing.

    Args:
        comparison: of networks that classify; of others nothing is looked at.
        folder: that the comparison is in.
        progress: called with how much is done of how much.

    Returns:
        What is found, by operator, of those that are trained.

    Raises:
        OSError: the folder can't be written or the disk is full.
    """
    if comparison.recipe.get("task", DEFAULT_TASK) != DEFAULT_TASK:
        return {}
    folders = {row.operator: run_folder(folder, row.operator, comparison.seeds[0]) for row in comparison.rows}
    trained = {operator: each for operator, each in folders.items() if is_finished(each)}
    amount = amount_for(comparison.baseline.macs)
    images: ImageSet | None = None
    found: dict[str, Insight] = {}
    for number, (operator, each) in enumerate(trained.items()):

        def step(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, len(trained) * total)

        insight = kept(each / FILE, amount)
        if insight is None:
            try:
                network, config = load_model(each / MODEL)
                if images is None:
                    recipe = recipe_of(config, **TESTED)
                    count = max(SHOWN, AMOUNTS[0][1])
                    images = sample(info_of(config), recipe, count, progress=progress is not None)
                insight = insight_of(Specimen(operator, network, info_of(config), images), amount, step)
            except Exception as error:  # the report is worth more than a part of it
                insight = Insight(reasons=dict.fromkeys(("similarity", "look"), in_a_line(error)))
            keep(insight, each / FILE, amount)
        found[operator] = insight
    return found


def amount_for(macs: int) -> tuple[int, int]:
    """How many filters of a layer, and images, patterns are taken of in a network with so many multiply-accumulates.

    >>> amount_for(10_000_000), amount_for(1_800_000_000), amount_for(100_000_000_000)
    ((8, 8), (4, 4), (3, 1))
    """
    fitting = (amount for amount in AMOUNTS if LAYERS * amount[0] * amount[1] * macs <= WORK)
    return next(fitting, AMOUNTS[-1])


def insight_of(specimen: Specimen, amount: tuple[int, int], progress: Step) -> Insight:
    """Looks into one network."""
    reasons: dict[str, str] = {}

    def attempt(name: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except Exception as error:
            reasons[name] = in_a_line(error)
            return None

    few = Selection(specimen.images, range(min(SHOWN, len(specimen.images))))
    look = attempt("look", lambda: Look.at(Specimen(specimen.name, specimen.network, specimen.info, few)))
    similarity = attempt("similarity", lambda: similarity_of(specimen.network, specimen.images, amount, progress))
    return Insight(similarity, look, reasons)


def similarity_of(network: nn.Module, images: ImageSet, amount: tuple[int, int], progress: Step) -> Similarity:
    """The similarity of some filters, in layers from first to last."""
    filters, count = amount
    batch = images.batch(range(min(count, len(images))))[0]
    layers = spread(list(layer_widths(network, batch[:1], None)), LAYERS)
    return filter_similarity(network, batch, layers, filters=filters, progress=progress)


def spread(names: Sequence[str], most: int) -> list[str]:
    """At most so many of the names, evenly spread from the first to the last.

    >>> spread("abcdefg", 3), spread("ab", 3)
    (['a', 'd', 'g'], ['a', 'b'])
    """
    count = min(most, len(names))
    return [names[round(place)] for place in np.linspace(0, len(names) - 1, count)]


def in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def keep(insight: Insight, path: Path, amount: tuple[int, int]) -> None:
    """Writes what is whole into one file; what isn't will be tried again.

    Raises:
        OSError: it can't be written.
    """
    similarity, look = insight.similarity, insight.look
    if similarity is None or look is None:
        return
    header = {
        "amount": amount,
        "similarity": [similarity.what, list(similarity.notes)],
        "layers": [[layer.name, list(layer.channels), layer.of] for layer in similarity.layers],
        "look": [list(look.classes), look.evidence.layer],
    }
    tensors = {
        "pixels": look.images.pixels(range(len(look.images))),
        "labels": look.images.labels,
        "classes": look.evidence.classes,
        "probabilities": look.evidence.probabilities,
        "maps": look.evidence.maps,
        **{f"matrix{number}": layer.matrix for number, layer in enumerate(similarity.layers)},
    }
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    file = io.BytesIO()
    np.savez(file, header=json.dumps(header), **arrays)
    write(path, file.getvalue())


def kept(path: Path, amount: tuple[int, int]) -> Insight | None:
    """What `keep` wrote, if it is there, readable, and of the same amount."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            header = json.loads(str(file["header"]))
            tensors = {name: torch.from_numpy(file[name]) for name in file.files if name != "header"}
        if tuple(header["amount"]) != amount:
            return None
        layers = [
            LayerSimilarity(name, channels, of, tensors[f"matrix{number}"])
            for number, (name, channels, of) in enumerate(header["layers"])
        ]
        what, notes = header["similarity"]
        classes, layer = header["look"]
        images = ArrayImages(tensors["pixels"], tensors["labels"], (), ())
        evidence = Evidence(layer, tensors["classes"], tensors["probabilities"], tensors["maps"])
        return Insight(Similarity(what, layers, notes), Look(images, classes, evidence))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
