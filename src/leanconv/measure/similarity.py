"""How redundant the filters of a network are: the similarity of their patterns, of their weights and of their maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.measure.batches import Batches, Images
from leanconv.measure.layer_similarity import LayerSimilarity, Similarity
from leanconv.measure.observing import named_layers, observe
from leanconv.measure.patterns import add_patterns
from leanconv.nn import DDF, AsymmetricConv2d, GhostConv2d, SplitConv2d, TiedConv2d, TiedSplitConv2d
from leanconv.nn.arguments import require_positive
from leanconv.steps import Step

CONVOLUTIONS = (nn.Conv2d, DDF, AsymmetricConv2d, GhostConv2d, SplitConv2d, TiedConv2d, TiedSplitConv2d)
PATTERN_BYTES = 2**29  # of patterns held at once; one layer's may be more


def filter_similarity(
    model: nn.Module,
    images: Images,
    layers: Sequence[str] | None = None,
    *,
    filters: int | None = 16,
    seed: int = 0,
    batch_size: int = 8,
    progress: Step | None = None,
) -> Similarity:
    """How alike the patterns are that a layer's filters look for.

    X. Wang and S. X. Yu, *Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters*, AAAI 2021, Figs.
    1 and 9. A filter's pattern is its guided backpropagation averaged over the images x_1 ... x_n,

        P_c = 1/n Σ_i guided ∂(Σ_hw A_c(x_i)[h, w]) / ∂x_i,

    with A_c the map that the layer gives for filter c: a convolution's before norm and activation. The similarity of
    two filters is the cosine of their patterns. How a map becomes a number isn't in the paper: here it is summed.

    Each filter takes a backward pass for each image, so that all of a large network's are hours of work. By default
    some of a layer's filters, drawn at random, stand for the rest: the mean comes with its standard error. The time
    is proportional to filters, images and the images' area; memory to the batch, besides the patterns of one layer.

    Args:
        model: any module that takes images; it runs in eval mode and stays as it is.
        images: (N, C, H, W); or such batches in a collection that can be gone through again, a list or a data loader,
            of tensors or of tuples that begin with one.
        layers: paths of layers or shell patterns, such as "layer4.*.conv2"; by default every convolution, of
            `torch.nn` or `leanconv.nn`, with a window larger than 1 × 1.
        filters: how many filters a layer, the same for the same seed and width; None takes all.
        seed: of the draw.
        batch_size: images at once, where they are one tensor.
        progress: called after each backward pass with how many are done and how many there will be.

    Raises:
        ValueError: for a layer that doesn't exist or doesn't run; a model without layers to compare or that runs
            without an activation of the ReLU family; images of another shape, or none; filters or batch_size below 1.
        TypeError: for images that aren't floating-point numbers, or can be gone through only once.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3))
    >>> similarity = filter_similarity(model, torch.randn(2, 3, 8, 8), filters=None)
    >>> [tuple(layer.matrix.shape) for layer in similarity.layers]
    [(4, 4), (8, 8)]
    """
    require_positive(filters=1 if filters is None else filters, batch_size=batch_size)
    batches = Batches(images, batch_size)
    example = batches.example()
    widths = layer_widths(model, example, layers)
    chosen = {name: draw(width, filters, seed) for name, width in widths.items()}
    total = len(batches) * sum(map(len, chosen.values()))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    results = []
    for group in groups(chosen, example):
        sums = {name: torch.zeros(len(chosen[name]), *example.shape[1:], dtype=accumulated(example),
                                  device=example.device) for name in group}
        for batch in batches:
            if batch.shape[1:] != example.shape[1:]:
                sizes = f"{tuple(example.shape[1:])} and {tuple(batch.shape[1:])}"
                raise ValueError(f"images must all have the same size for patterns to be averaged, got {sizes}")
            add_patterns(model, batch, {name: chosen[name] for name in group}, sums, step)
        results += [LayerSimilarity(name, chosen[name], widths[name], cosines(sums.pop(name).flatten(1)))
                    for name in group]
    return Similarity("guided-backpropagation patterns", results, [f"Patterns averaged over {batches.count} images."])


def map_similarity(
    model: nn.Module,
    images: Images,
    layers: Sequence[str] | None = None,
    *,
    batch_size: int = 8,
    progress: Step | None = None,
) -> Similarity:
    """How alike the maps are that a layer gives: the cosine of each two in one image, averaged over the images.

    Maps that are nearly multiples of one another are what K. Han et al., *GhostNet: More Features from Cheap
    Operations*, CVPR 2020, make from each other. See `filter_similarity` for the arguments and errors;
    `progress` is called after each batch.

    >>> model = nn.Conv2d(1, 2, 3, bias=False)
    >>> model.weight.data[1] = 3 * model.weight.data[0]
    >>> similarity = map_similarity(nn.Sequential(model), torch.randn(2, 1, 8, 8))
    >>> round(similarity["0"].matrix[0, 1].item(), 4)
    1.0
    """
    require_positive(batch_size=batch_size)
    batches = Batches(images, batch_size)
    widths = layer_widths(model, batches.example(), layers)
    sums: dict[str, Tensor] = {}
    with torch.no_grad():
        for done, batch in enumerate(batches, start=1):
            for name, calls in observe(model, batch, widths)[1].items():
                require_maps(name, calls[0])
                maps = torch.cat([call.flatten(2) for call in calls], 2)
                units = F.normalize(maps.to(accumulated(maps)), dim=2)
                sums[name] = sums.get(name, 0) + (units @ units.mT).sum(0)
            if progress is not None:
                progress(done, len(batches))
    results = [LayerSimilarity(name, range(width), width, unit_diagonal(sums[name] / batches.count))
               for name, width in widths.items()]
    return Similarity("feature maps", results, [f"Similarities averaged over {batches.count} images."])


def weight_similarity(model: nn.Module, layers: Sequence[str] | None = None) -> Similarity:
    """How alike the weights of a layer's filters are: the cosine of each two.

    Args:
        model: any module.
        layers: paths of `torch.nn.Conv2d` modules or shell patterns; by default every one with a window larger than
            1 × 1, those inside of other layers too.

    Raises:
        ValueError: for a layer that doesn't exist or isn't a convolution; a model without any.

    >>> weight_similarity(nn.Sequential(nn.Conv2d(3, 4, 3)))["0"].matrix.shape
    torch.Size([4, 4])
    """
    if layers is None:
        names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and has_window(module)]
        require_layers(model, names)
    else:
        names = named_layers(model, layers)
    results = []
    for name in names:
        conv = model.get_submodule(name)
        if not isinstance(conv, nn.Conv2d):
            raise ValueError(f"layers must be torch.nn.Conv2d modules, {name!r} is {type(conv).__name__}")
        weights = conv.weight.detach().flatten(1)
        results.append(LayerSimilarity(name, range(len(weights)), len(weights), cosines(weights)))
    return Similarity("weights", results)


def layer_widths(model: nn.Module, image: Tensor, layers: Sequence[str] | None) -> dict[str, int]:
    """How many channels each chosen layer gives, by path; by default those of the convolutions that run.

    Raises:
        ValueError: where there is no layer to compare.
    """
    names = convolutions(model) if layers is None else named_layers(model, layers)
    with torch.no_grad():
        ran = observe(model, image, names, all_must_run=layers is not None)[1]
    widths = {name: calls[0].shape[1] for name, calls in ran.items() if calls}
    require_layers(model, widths)
    return widths


def convolutions(model: nn.Module) -> list[str]:
    """The paths of the outermost convolutions with a window larger than 1 × 1."""
    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and isinstance(module, CONVOLUTIONS) and not inside and has_window(module):
            found.append(name)
    return found


def has_window(module: nn.Module) -> bool:
    """Whether a convolution, or one that it holds, sees more than a pixel.

    >>> has_window(nn.Conv2d(4, 4, (1, 3))), has_window(TiedConv2d(4, 4, 1, blocks=2))
    (True, False)
    """
    return any(isinstance(child, nn.Conv2d | DDF) and max(child.kernel_size) > 1 for child in module.modules())


def require_layers(model: nn.Module, names: Iterable[str]) -> None:
    """
    Raises:
        ValueError: without names.
    """
    if not list(names):
        raise ValueError(f"layers must be named: {type(model).__name__} runs no convolution larger than 1 × 1")


def require_maps(path: str, maps: Tensor) -> None:
    """
    Raises:
        ValueError: for what a layer gave, if it isn't maps.
    """
    if maps.dim() != 4:
        raise ValueError(f"layer {path!r} must give maps (N, channels, h, w), got {tuple(maps.shape)}")


def draw(width: int, filters: int | None, seed: int) -> list[int]:
    """The filters to compare, in order: all, or as many as asked for, drawn at random.

    >>> draw(4, None, 0), draw(4, 9, 0), len(draw(64, 9, 0))
    ([0, 1, 2, 3], [0, 1, 2, 3], 9)
    """
    if filters is None or filters >= width:
        return list(range(width))
    return sorted(torch.randperm(width, generator=torch.Generator().manual_seed(seed))[:filters].tolist())


def groups(chosen: dict[str, list[int]], image: Tensor) -> Iterator[list[str]]:
    """The layers whose patterns are held at the same time: as many as fit, so that they share forward passes."""
    most = PATTERN_BYTES // (image.numel() * accumulated(image).itemsize)
    group: list[str] = []
    held = 0
    for name, channels in chosen.items():
        if group and held + len(channels) > most:
            yield group
            group, held = [], 0
        group, held = [*group, name], held + len(channels)
    yield group


def accumulated(values: Tensor) -> torch.dtype:
    """What values are added up in: half precision in single."""
    return torch.promote_types(values.dtype, torch.float32)


def cosines(vectors: Tensor) -> Tensor:
    """The cosine of each two rows, on the CPU.

    >>> cosines(torch.tensor([[1.0, 0.0], [2.0, 2.0]]))
    tensor([[1.0000, 0.7071],
            [0.7071, 1.0000]])
    """
    units = F.normalize(vectors.to(accumulated(vectors)), dim=1)
    return unit_diagonal(units @ units.T)


def unit_diagonal(matrix: Tensor) -> Tensor:
    """Cosines as they would be without rounding: at most 1, and 1 with oneself."""
    return matrix.clamp(-1, 1).fill_diagonal_(1).cpu()
