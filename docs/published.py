"""What each paper publishes of its networks' costs, beside the networks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from counting import (
    Comparison,
    Quantity,
    Row,
    build,
    convolutions_alone,
    deployed,
    legacy_thop,
    legacy_thop_without_relu,
    macs_in_training,
    params,
    row,
    thop,
)
from torch import Tensor, nn

from leanconv.nn import TiedConv2d, TiedGlobalContext, TiedSE
from leanconv.nn.arguments import of_conv

SAME = "the same"


def replaced(model: nn.Module, make: Callable[[nn.Conv2d], nn.Module]) -> nn.Module:
    """A copy of a network with something else for each of its 3x3 convolutions."""
    model = copy.deepcopy(model)
    for name, conv in list(model.named_modules()):
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            model.set_submodule(name, make(conv))
    return model


def attention(network: str, kind: type[nn.Module], name: str, published: str = "", **options: Any) -> Row:
    """The row of a network's attention layers alone."""
    return Row(network, Quantity(within(kind, name, **options), published))


def within(kind: type[nn.Module], name: str, **options: Any) -> int:
    """The parameters of a network's layers of a kind."""
    return sum(params(layer) for layer in build(name, **options).modules() if isinstance(layer, kind))


def linear_weights(name: str, **options: Any) -> int:
    """The weights, without biases, of a network's TiedSE layers."""
    layers = [layer for layer in build(name, **options).modules() if isinstance(layer, TiedSE)]
    return sum(weight.numel() for layer in layers for weight in layer.parameters() if weight.ndim > 1)


def tied_attention() -> list[Comparison]:
    se, gc = (TiedSE, "tied_seresnet50"), (TiedGlobalContext, "tied_gcresnet50")
    plain_weights, tied_weights = (linear_weights(se[1], blocks=blocks) for blocks in (1, 8))
    return [
        Comparison("""The parameters of the attention alone, in ResNet-50. Figures: the paper's text. It doesn't give
                   GCB's ratio, stages and B: these are the ones that lead to its figures.""", [
            attention("SE, r = 16 (B = 1)", *se, "2.53M", blocks=1),
            attention("TiedSE, B = 2", *se, blocks=2),
            attention("TiedSE, B = 4", *se, blocks=4),
            attention("TiedSE, B = 8", *se, "0.04M", blocks=8),
            attention("TiedSE, B = 16", *se, blocks=16),
            Row("SE, weights without biases", Quantity(plain_weights)),
            Row("TiedSE, B = 8, weights without biases", Quantity(tied_weights, "64× fewer", plain_weights)),
            attention("GCB, ratio 1/4, stages 2 to 4 (B = 1)", *gc, "10M", blocks=1),
            attention("TiedGCB, B = 2", *gc, "2.5M", blocks=2),
            Row("TiedGCB, B = 4", Quantity(within(*gc, blocks=4), "16× fewer", within(*gc, blocks=1)),
                why="16 times without biases, norms and the mask's convolution, which can't be tied"),
            attention("GCB, ratio 1/16", *gc, blocks=1, ratio=1 / 16),
            attention("TiedGCB, ratio 1/16, B = 2", *gc, blocks=2, ratio=1 / 16),
            attention("TiedGCB, ratio 1/16, B = 4", *gc, blocks=4, ratio=1 / 16),
        ]),
        Comparison("""Whole networks with it. Nothing is published. Whether the paper's TiedSENet is TiedResNet-50 or
                   ResNet-50 with TiedSE isn't said: both are here.""", [
            *(row(f"ResNet-50, TiedSE, B = {blocks}", build("tied_seresnet50", blocks=blocks))
              for blocks in (1, 2, 4, 8, 16)),
            row("TiedResNet-50, TiedSE, B = 8", build("tied_senet50")),
            row("TiedResNet-50, SE", build("tied_senet50", blocks=1)),
            row("ResNet-50, TiedGCB, B = 2", build("tied_gcresnet50")),
            *(row(f"EfficientNet-B0, TiedSE, B = {blocks}", build("tied_efficientnet_b0", blocks=blocks))
              for blocks in (1, 2, 4, 8)),
        ]),
    ]


def tied_networks() -> list[Comparison]:
    resnet50, resnet101, resnext50 = build("resnet50"), build("resnet101"), build("resnext50_32x4d")
    resnest50 = build("tied_resnest50_fast_1s2x40d", blocks=1)
    small, tenth, fewer = ("54 %", "60 %"), ("10 % fewer", ""), ("fewer", "fewer")
    first = {"tie_first": True}
    tied_3x3 = replaced(resnet50, lambda conv: TiedConv2d(**of_conv(conv), blocks=2))
    literal = "the text to the letter: every entrance tied. No natural mixer gives the published shares with it"
    return [
        Comparison("""The paper's tables couldn't be found, so there are only the shares that its text quotes,
                   relative to the plain network. The networks are reconstructions: the text leaves the mixer and
                   odd widths open. The defaults leave the first entrance of each stage untied, for which nothing
                   speaks but these counts; `tie_first=True` ties them, as the text has it.""", [
            row("ResNet-50", resnet50),
            row("ResNet-101", resnet101),
            row("TiedResNet-50-S", build("tied_resnet50_s"), small, of=resnet50),
            row("TiedResNet-50", build("tied_resnet50"), tenth, of=resnet50,
                why="of the natural forms, the best fit to the four shares together"),
            row("TiedResNet-101", build("tied_resnet101"), tenth, of=resnet101,
                why="the same; its untied entrances are fewer among more blocks"),
            row("TiedResNet-101-S", build("tied_resnet101_s")),
            row("TiedResNet-50-S, `tie_first`", build("tied_resnet50_s", **first), small, of=resnet50, why=literal),
            row("TiedResNet-50, `tie_first`", build("tied_resnet50", **first), tenth, of=resnet50, why=SAME),
            row("TiedResNet-101, `tie_first`", build("tied_resnet101", **first), tenth, of=resnet101, why=SAME),
            row("TiedResNet-101-S, `tie_first`", build("tied_resnet101_s", **first)),
            row("TiedResNet-50, no mixer", build("tied_resnet50", mixer="none")),
            row("TiedResNet-50, concatenating mixer", build("tied_resnet50", mixer="concat")),
        ]),
        Comparison("""Tied forms of other networks, from the text too, whose "similar trends" are taken as fewer
                   parameters and MACs than ResNeXt-50 32x4d. The text doesn't define ResNeSt-50-S; the shares are
                   those of ResNeSt-50-fast-1s2x40d.""", [
            row("ResNeXt-50 32x4d", resnext50),
            row("TiedResNeXt-50, 8 groups a split", build("tied_resnext50"), fewer, of=resnext50,
                why="4 splits of base width 64 are four times as wide as a ResNet; a mixer adds to that"),
            row("TiedResNeXt-50, no mixer", build("tied_resnext50", mixer="none"), fewer, of=resnext50,
                why="the width, as before"),
            row("TiedResNeXt-50-S, 4 groups a split", build("tied_resnext50_s"), fewer, of=resnext50,
                why="the mixer's MACs"),
            row("TiedResNeXt-50-S, no mixer", build("tied_resnext50_s", mixer="none"), fewer, of=resnext50),
            row("ResNeSt-50-fast-1s2x40d", resnest50),
            row("TiedResNeSt-50-fast-1s2x40d", build("tied_resnest50_fast_1s2x40d"), ("59 %", "82 %"), of=resnest50,
                why="no ResNeSt-50 has both shares, whichever of its convolutions are tied"),
        ]),
        Comparison("""An independent count of tied convolutions: SCConv (CVPR 2023) has ResNet-50 with its 3x3 tied
                   in its tables.""", [
            row("ResNet-50, 3x3 tied, B = 2", tied_3x3, ("17.07M", "3.19G"),
                why="with two operations for each normed element, which theirs seem to include, it is 3.19 G"),
        ]),
    ]


def dynamic() -> list[Comparison]:
    def resnet50(squeeze_ratio: float, *published: str, why: str) -> Row:
        model = build("ddf_mul_resnet50", squeeze_ratio=squeeze_ratio)
        return row(f"DDF-ResNet-50, σ = {squeeze_ratio}", model, published, by=thop, why=why)

    return [
        Comparison("""Figures: the paper's tables 4 and 5; those with three decimals are of its study of σ. Its FLOPs
                   are from thop, which counts norms and pools, too, and doesn't see the filters' application (1
                   %); here by the rules of thop 0.1.1. Networks whose filters are added instead of multiplied
                   cost the same.""", [
            row("DDF-ResNet-50", build("ddf_mul_resnet50"), ("16.8M", "2.3B"), by=thop),
            row("DDF-ResNet-101", build("ddf_mul_resnet101"), ("28.1M", "4.1B"), by=thop),
            row("DDF-ResNet-152 (authors' code)", build("ddf_mul_resnet152"), by=thop),
            resnet50(0.2, "16.8M", "2.298B",
                     why="their tool's version isn't known; what it counts beside MACs differs by 0.1 %"),
            resnet50(0.3, "18.1M", "2.299B", why=SAME),
            resnet50(0.4, "19.4M", "2.300B", why=SAME),
            row("DDF-ResNet-18 (reconstruction: σ = 0.5)", build("ddf_resnet18"), ("7.7M", "0.4B"), by=thop),
            row("DDF-ResNet-18, σ = 0.2", build("ddf_resnet18", squeeze_ratio=0.2), ("7.7M", "0.4B"), by=thop,
                why="so σ isn't 0.2 there, as it is in the other networks"),
            row("DDF-ResNet-50-D, wide (reconstruction)", build("ddf_mul_resnet50d_wide"), by=thop),
        ], counter="FLOPs by thop"),
    ]


def asymmetric() -> list[Comparison]:
    def three(network: str, plain: nn.Module, model: nn.Module, *published: tuple[str, str]) -> list[Row]:
        return [
            row(network, plain, published[0]),
            row(f"{network}, ACNet in training", model, published[1], by=macs_in_training),
            row(f"{network}, ACNet deployed", deployed(model), published[2]),
        ]

    def cifar(network: str, name: str, *published: tuple[str, str], **options: Any) -> list[Row]:
        return three(network, build(name, **options), build(name, operator="asymmetric", **options), *published)

    others = {"DenseNet-121": build("ac_densenet121"), "AlexNet": build("ac_alexnet")}
    return [
        Comparison("""The paper prints no costs. The figures are counts of the networks that the authors' repository
                   defines, not the paper's. A deployed network costs what the plain one does.""", [
            *cifar("Cifar-quick", "cifar_quick", ("0.1170M", "10.76M"), ("0.1492M", "15.05M"), ("0.1169M", "10.76M")),
            *cifar("VGG-16", "cifar_vgg16", ("14.9867M", "313.46M"), ("24.8106M", "522.26M"), ("14.9825M", "313.46M")),
            *cifar("ResNet-56, 1x1 shortcuts", "cifar_resnet56", ("0.8558M", "125.75M"), ("1.4294M", "209.40M"),
                   ("0.8537M", "125.75M"), shortcut="B"),
            *three("ResNet-18", build("resnet18"), build("ac_resnet18"), ("11.6895M", "1814.1M"),
                   ("19.0285M", "2931.6M"), ("11.6857M", "1814.1M")),
            *three("ResNet-50", build("resnet50"), build("ac_resnet50"), ("25.5570M", "4089.2M"),
                   ("33.1170M", "5322.3M"), ("25.5533M", "4089.2M")),
            *three("WRN-16-8", build("cifar_wrn16_8"), build("cifar_wrn16_8", operator="asymmetric:norms=add"),
                   ("10.9622M", ""), ("18.1725M", "2567.7M"), ("10.9658M", "")),
        ], source="repository"),
        Comparison("Networks of the paper whose code isn't published, reconstructed.", [
            counted for network, model in others.items() for counted in (
                row(f"{network}, ACNet in training", model, by=macs_in_training),
                row(f"{network}, ACNet deployed", deployed(model)),
            )
        ]),
    ]


def ghost() -> list[Comparison]:
    names = {"0.5": "ghostnet_x050", "1.0": "ghostnet_x100", "1.1": "ghostnet_x110", "1.3": "ghostnet_x130"}
    costs = {"0.5": ("2.6M", "42M"), "1.0": ("5.2M", "141M"), "1.1": ("", "164M"), "1.3": ("7.3M", "226M")}

    def vgg(ratio: int, size: int, *published: str) -> Row:
        model = build("cifar_vgg16", operator=f"ghost:ratio={ratio},cheap_kernel_size={size}")
        return row(f"Ghost-VGG-16, s = {ratio}, d = {size}", model, published, by=convolutions_alone)

    def behind_the_first(name: str, module: nn.Module) -> bool:
        return name != "layer1.0.conv"

    return [
        Comparison("""GhostNet. Figures: the paper's tables; 1.2× is from a plot. Channels are rounded as in the
                   authors' PyTorch code and in timm, whose weights fit.""", [
            *(row(f"GhostNet {width}×", build(names[width]), costs[width]) for width in ("0.5", "1.0")),
            row("GhostNet 1.1×", build(names["1.1"]), costs["1.1"],
                why="the paper rounded channels as its TensorFlow code does: the next table"),
            row("GhostNet 1.2×", build("ghostnet_x100", width=1.2), ("", "198M")),
            row("GhostNet 1.3×", build(names["1.3"]), costs["1.3"], why="the rounding, as for 1.1×"),
        ]),
        Comparison("""The same with `rounding="tensorflow"`, as in the authors' first code. Its head has a norm (1280
                   parameters) in the place of a bias, which isn't followed here.""", [
            row(f"GhostNet {width}×", build(names[width], rounding="tensorflow"), costs[width]) for width in costs
        ]),
        Comparison("""Ghost-VGG-16 for CIFAR. Figures: the paper's tables for d and for s, both of which have the row
                   s = 2, d = 3; FLOPs are those of the convolutions alone. They are met where all 13 convolutions
                   become Ghost modules, the first too.""", [
            row("VGG-16", build("cifar_vgg16"), ("15.0M", "313M"), by=convolutions_alone),
            vgg(2, 1, "7.6M", "157M"),
            vgg(2, 3, "7.7M", "158M"),
            vgg(2, 5, "7.7M", "160M"),
            vgg(2, 7, "7.7M", "163M"),
            vgg(3, 3, "5.2M", "107M"),
            vgg(4, 3, "4.0M", "80M"),
            vgg(5, 3, "3.3M", "65M"),
            row("Ghost-VGG-16, s = 4, d = 3, first kept",
                build("cifar_vgg16", operator="ghost:ratio=4", where=behind_the_first), ("4.0M", "80M"),
                by=convolutions_alone, why="so it wasn't kept, though an author's answer says that it was"),
        ], counter="FLOPs of convolutions"),
        Comparison("Ghost-ResNets. Figures: the paper's tables.", [
            row("ResNet-56 for CIFAR", build("cifar_resnet56"), ("0.85M", "125M")),
            row("Ghost-ResNet-56, s = 2, d = 3", build("cifar_resnet56", operator="ghost:ratio=2"), ("0.43M", "63M"),
                why="the figures are those of d = 1, or leave the cheap operation out"),
            row("Ghost-ResNet-56, s = 2, d = 1",
                build("cifar_resnet56", operator="ghost:ratio=2,cheap_kernel_size=1"), ("0.43M", "63M")),
            row("ResNet-50", build("resnet50"), ("25.6M", "4.1B")),
            row("Ghost-ResNet-50, s = 2", build("ghost_resnet50_s2"), ("13.0M", "2.2B"),
                why="the parameters belong to no known construction; others count what is counted here"),
            row("Ghost-ResNet-50, s = 4", build("ghost_resnet50_s4"), ("6.5M", "1.2B"), why=SAME),
        ]),
    ]


class SquareAndPoint(nn.Module):
    """A 3x3 convolution and a 1x1 beside it, added up."""

    def __init__(self, square: nn.Conv2d) -> None:
        super().__init__()
        self.square = square
        self.point = nn.Conv2d(square.in_channels, square.out_channels, 1, bias=False, device="meta")

    def forward(self, input: Tensor) -> Tensor:
        return self.square(input) + self.point(input)


def split() -> list[Comparison]:
    vgg, by = build("cifar_vgg16"), "FLOPs by that tool"
    baseline = replaced(vgg, lambda conv: conv if conv.in_channels == 3 else SquareAndPoint(conv))

    def cifar(network: str, share: int, *published: str, **given: Any) -> Row:
        name, options, counter = {
            "VGG-16": ("cifar_vgg16", {}, legacy_thop),
            "ResNet-20": ("cifar_resnet20", {"shortcut": "B"}, legacy_thop_without_relu),
        }[network]
        model = build(name, operator=f"split:alpha={1 / share}", **options)
        return row(f"SPConv-{network}, α = 1/{share}", model, published, by=counter, **given)

    def large(depth: int, share: int, *published: str) -> Row:
        model = build(f"split_resnet{depth}_a{share}")
        return row(f"SPConv-ResNet-{depth}, α = 1/{share}", model, published or ("", ""), by=legacy_thop_without_relu)

    return [
        Comparison("""CIFAR-10. Figures: the paper's table. Its FLOPs are by pytorch-OpCounter as it was in 2019 and
                   2020 (`docs/opcounter.py`), which also counts biases, norms, pooling and, in VGG-16,
                   ReLUs.""", [
            row("VGG-16", vgg, ("16.62M", "349.51M"), by=legacy_thop,
                why="the paper's baseline is larger than VGG-16: the next row"),
            row("VGG-16, a 1x1 beside each 3x3 but the first", baseline, ("16.62M", "349.51M"), by=legacy_thop),
            cifar("VGG-16", 2, "5.6M", "118.27M"),
            cifar("VGG-16", 4, "3.77M", "79.34M"),
            cifar("VGG-16", 8, "2.85M", "59.87M"),
            cifar("VGG-16", 16, "2.39M", "55.14M", why="a misprint of 50.14"),
        ], counter=by),
        Comparison("The same for ResNet-20 with 1x1 shortcuts, whose ReLUs are functions, which aren't counted.", [
            row("ResNet-20", build("cifar_resnet20", shortcut="B"), ("0.27M", "41.62M"), by=legacy_thop_without_relu),
            cifar("ResNet-20", 2, "0.10M", "17.91M"),
            cifar("ResNet-20", 4, "0.071M", "12.89M"),
        ], counter=by),
        Comparison("""ImageNet. Figures: the paper's table, by the same tool. ReLUs are counted in the plain network,
                   and not in the others.""", [
            row("ResNet-50", build("resnet50"), ("25.56M", "4.14G"), by=legacy_thop),
            large(50, 2, "18.34M", "2.97G"),
            large(50, 4, "16.93M", "2.74G"),
            large(50, 8, "16.22M", "2.62G"),
            large(101, 2),
            large(101, 4),
            large(101, 8),
        ], counter=by),
    ]
