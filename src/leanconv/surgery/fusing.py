"""The inference form of a model: norms folded into the convolutions before them, proven equal on the spot."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_leaves

from leanconv.errors import unknown
from leanconv.modes import evaluating
from leanconv.nn import AsymmetricConv2d, GhostConv2d, SplitConv2d, TiedConv2d, TiedSplitConv2d
from leanconv.nn.arguments import name_of_type
from leanconv.surgery.sites import convolutions, inside, own_layers
from leanconv.surgery.watching import default_example, norm_after, norm_paths, watch
from leanconv.surgery.weight_range import WeightRange, weight_range
from leanconv.table import Table

FORMS = ("auto", "untie", "keep")
TIED = (TiedConv2d, TiedSplitConv2d)
WITH_NORMS = {  # layers that have norms of their own, and what `fused` makes of them
    AsymmetricConv2d: "one convolution, its branches and their norms added up",
    GhostConv2d: "its own norms folded in",
    SplitConv2d: "its own norms folded in",
}


@dataclass(frozen=True)
class Fusion:
    """What `fuse` did, layer by layer, and how exactly.

    Args:
        layers: by path, what became of each convolution, and of each norm that stays.
        folded: how many norms were folded.
        kept: the paths of the tied convolutions that stay tied although a norm follows them.
        error: largest difference over largest output, in float64 with randomised norm statistics.
        drift: the same for the model as it is, in its own dtype.
        ranges: by path, the range of the weights of each layer that took norms in, before and after. Folding scales
            each output channel by its own factor, which weights of 8 bits with one scale for all channels suffer from.
    """

    layers: Mapping[str, str]
    folded: int
    kept: tuple[str, ...]
    error: float
    drift: float
    ranges: Mapping[str, tuple[WeightRange, WeightRange]]

    def table(self) -> Table:
        """The record as a table."""
        notes = [
            f"{self.folded} norms folded; relative error {self.error:.1e} in float64 with random norm statistics, "
            f"{self.drift:.1e} as it is"
        ]
        return Table(["layer", "became"], list(self.layers.items()), notes=notes)

    def ranges_table(self) -> Table:
        """The ranges of the weights before and after, in the order of what there is to span afterwards."""
        rows = [
            [layer, *(f"{before.largest:.3g} → {after.largest:.3g}",
                      f"{before.over_median:.1f}× → {after.over_median:.1f}×",
                      f"{before.over_smallest:.1f}× → {after.over_smallest:.1f}×")]
            for layer, (before, after) in sorted(self.ranges.items(), key=lambda item: -item[1][1].over_median)
        ]
        columns = ["layer", "max |w|", "over the median channel's", "over the smallest channel's"]
        return Table(columns, rows, "Ranges of the weights, before → after")

    def __rich__(self) -> Any:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())


def fuse(
    model: nn.Module,
    example: Tensor | None = None,
    *,
    tied: Literal["auto", "untie", "keep"] | Collection[str] = "auto",
    tolerance: float = 1e-9,
) -> nn.Module:
    """A copy of a model for inference, with each batch norm folded into the convolution before it.

    Layers with norms of their own take their inference form: an asymmetric convolution block becomes one `nn.Conv2d`,
    ghost and split convolutions lose their norms.

    A norm scales each channel by its own factor, so it can't be folded into filters that blocks of channels share. A
    tied convolution with a norm therefore takes one of two forms:

    * "untie": a grouped `nn.Conv2d` with the norm folded in (each block gets its own, scaled copy of the filters; those
      of a `TiedSplitConv2d` become one convolution, with up to B times their multiply-accumulates);
    * "keep": the weights stay tied, the norm stays after them: in eval mode it is one scale and shift per channel.

    "auto" goes by a rule fitted to `benchmarks/fused_tied.py`, for the example's size, batch and memory format: "keep"
    for 1x1 kernels in NCHW and where repeated filters would outweigh the maps, "untie" for the others.

    Only an `nn.BatchNorm2d` itself is folded, never a subclass (it may hold an activation), and only where watching the
    model run shows that it alone takes the convolution's output. The result is compared with the model on random input,
    in float64 and with randomised norm statistics.

    Args:
        model: any module; it isn't changed.
        example: an input of the model; one of its default size is made up where it is None.
        tied: the form of tied convolutions with a norm; or the paths of those to keep, as `Fusion.kept` has them.
        tolerance: largest relative difference that passes, in float64.

    Returns:
        The fused copy in eval mode; its attribute `fusion` is the record of what was done, a `Fusion`.

    Raises:
        ValueError: for an unknown form, a path to no tied convolution, or an example that the model doesn't take.
        RuntimeError: when the fused model isn't equal.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    >>> fuse(model, torch.randn(1, 3, 8, 8))
    Sequential(
      (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
      (1): Identity()
      (2): ReLU()
    )
    """
    if isinstance(tied, str) and tied not in FORMS:
        raise unknown("form of tied convolutions", tied, FORMS)
    example = default_example(model) if example is None else example
    steps = fusion_steps(model, example, tied)
    error = difference(*randomised_pair(model, steps, example))
    if not error <= tolerance:
        raise RuntimeError(f"the fused model differs: relative error {error:.1e} in float64, above {tolerance:.1e}")
    fused = carry_out(copy.deepcopy(model).eval(), steps)
    layers = {step.layer: step.text for step in steps}
    own = own_layers(model)
    left = {name for name in norm_paths(model) if not inside(name, own)} - {step.norm for step in steps}
    layers |= {name: norm_reason(model.get_submodule(name)) or "unchanged: it follows no convolution alone"
               for name in sorted(left)}
    folded = len(norm_paths(model)) - len(norm_paths(fused))
    tied_layers = [step for step in steps if isinstance(model.get_submodule(step.layer), TIED)]
    kept = tuple(step.layer for step in tied_layers if step.norm and not step.folds)
    ranges = {
        step.layer: (weight_range(model.get_submodule(step.layer)), weight_range(fused.get_submodule(step.layer)))
        for step in steps if step.folds or takes_form(model.get_submodule(step.layer))
    }
    drift = difference(model, fused, example)
    fused.fusion = Fusion(layers, folded, kept, error, drift, ranges)  # type: ignore[assignment]
    return fused


@dataclass(frozen=True)
class Step:
    """What becomes of one convolution: `folds` says whether the norm after it, at path `norm`, goes into it."""

    layer: str
    norm: str | None
    folds: bool
    text: str


def fusion_steps(model: nn.Module, example: Tensor, tied: str | Collection[str]) -> list[Step]:
    """One step for each plain convolution of a model and each layer of ours that has an inference form."""
    kept = () if isinstance(tied, str) else tied
    known = (nn.Conv2d, *TIED, *WITH_NORMS)
    layers = {site.name: site.module for site in convolutions(model) if type(site.module) in known}
    for path in kept:
        if not isinstance(layers.get(path), TIED):
            raise unknown("tied convolution", path, [name for name, layer in layers.items() if isinstance(layer, TIED)])
    flow = watch(model, example)
    norms, steps = norm_after(model, flow, layers), []
    for path, layer in layers.items():
        norm = norms.get(path)
        if type(layer) in WITH_NORMS and not takes_form(layer):
            steps.append(Step(path, norm, False, "unchanged: its norms keep no running statistics"))
        elif own := WITH_NORMS.get(type(layer)):
            folds = type(layer) is AsymmetricConv2d and norm is not None and not norm_reason(model.get_submodule(norm))
            steps.append(Step(path, norm, folds, f"{own}, {norm} folded in too" if folds else own))
        elif norm is None:
            steps.append(Step(path, None, False, "unchanged: no norm takes its output alone"))
        elif reason := norm_reason(model.get_submodule(norm)):
            steps.append(Step(path, norm, False, f"unchanged: {norm} {reason}"))
        elif type(layer) is nn.Conv2d:
            steps.append(Step(path, norm, True, f"{norm} folded in"))
        elif tied == "keep" or path in kept or (
            tied == "auto" and faster_kept(layer, flow.tensors[flow.outputs[path][0]])
        ):
            steps.append(Step(path, norm, False, f"stays tied, {norm} scales and shifts after it"))
        else:
            steps.append(Step(path, norm, True, f"untied, {norm} folded in"))
    return steps


def faster_kept(layer: Any, output: Tensor) -> bool:
    """Whether a tied convolution with a norm is faster kept tied: a rule fitted to `benchmarks/fused_tied.py`.

    It is for 1x1 kernels in NCHW, where grouped convolutions are slow and products of matrices aren't; and where the
    filters, repeated for each block, would outweigh the output. A strided one in channels_last is computed with
    repeated filters even when it is tied. Parallel splits are several convolutions, of which untying makes one.
    """
    if isinstance(layer, TiedSplitConv2d):
        return False
    channels_last = output.is_contiguous(memory_format=torch.channels_last)
    if layer.conv.kernel_size == (1, 1) and not channels_last:
        return True
    repeats = channels_last and layer.conv.stride[1] > 1
    return not repeats and layer.weight.numel() * layer.blocks > output.numel()


def takes_form(layer: nn.Module) -> bool:
    """Whether a layer has an inference form of its own, with its norms folded in."""
    norms = [part for part in layer.modules() if isinstance(part, nn.BatchNorm2d)]
    return type(layer) in WITH_NORMS and all(norm_reason(norm) is None for norm in norms)


def norm_reason(norm: nn.Module) -> str | None:
    """Why a norm can't be folded, or None."""
    if type(norm) is not nn.BatchNorm2d:
        return f"isn't exactly an nn.BatchNorm2d but a {name_of_type(norm)}"
    if norm.running_mean is None:
        return "keeps no running statistics"
    return None


def carry_out(model: nn.Module, steps: list[Step]) -> nn.Module:
    """Folds the norms of a model, in place as far as it isn't a single layer."""
    for step in steps:
        layer = plain = model.get_submodule(step.layer)
        if takes_form(layer) or (step.folds and isinstance(layer, TIED)):
            plain = layer.fused()  # type: ignore[operator]
        if step.folds and step.norm is not None:
            norm = model.get_submodule(step.norm)
            plain = folded(plain, norm)  # type: ignore[arg-type]
            replace(model, norm, nn.Identity())
        if layer is model:
            return plain
        replace(model, layer, plain)
    return model


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts a layer in the place of another, at each path that leads to it."""
    for path in [path for path, module in model.named_modules(remove_duplicate=False) if module is old]:
        model.set_submodule(path, new)


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A convolution with the batch norm after it folded in, computed in float64.

    With s = γ / √(σ² + ε): W' = s W, b' = β + s (b − μ).
    """
    fused = fuse_conv_bn_eval(copy.deepcopy(conv).double().eval(), copy.deepcopy(norm).double().eval())
    return fused.to(conv.weight.dtype).requires_grad_(False)


def randomised_pair(model: nn.Module, steps: list[Step], example: Tensor) -> tuple[nn.Module, nn.Module, Tensor]:
    """The model and its fused form in float64, with the same random norm statistics, and a random input for both."""
    generator = torch.Generator().manual_seed(0)
    original = copy.deepcopy(model).eval().double()
    for path in norm_paths(original):
        norm = original.get_submodule(path)
        for name, low, high in (("running_mean", -0.2, 0.2), ("running_var", 0.5, 1.5), ("weight", 0.5, 1.5),
                                ("bias", -0.2, 0.2)):
            tensor = getattr(norm, name)
            if tensor is not None:
                random = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.data.copy_(low + (high - low) * random)
    image = torch.randn(example.shape, generator=generator, dtype=torch.float64).to(example.device)
    return original, carry_out(copy.deepcopy(original), steps), image


def difference(model: nn.Module, other: nn.Module, example: Tensor) -> float:
    """The largest difference between two models' outputs over the largest value, of the output where that is worst.

    Raises:
        ValueError: where the outputs hold no number to compare.
    """
    outputs = []
    for module in (model, other):
        with torch.no_grad(), evaluating(module):
            leaves = [leaf for leaf in tree_leaves(module(example)) if isinstance(leaf, Tensor)]
            outputs.append([leaf.double() for leaf in leaves if leaf.is_floating_point() and leaf.numel()])
    if not outputs[0]:
        raise ValueError("nothing can be proven: the model's output for the example holds no real numbers")
    if [leaf.shape for leaf in outputs[0]] != [leaf.shape for leaf in outputs[1]]:
        return float("inf")
    worst = [(a - b).abs().max() / (a.abs().max() or 1.0) for a, b in zip(*outputs, strict=True)]
    return float(torch.stack(worst).max())
