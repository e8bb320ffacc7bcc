"""Commands that change networks or measure them: plan, swap, profile, fuse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import leanconv
from leanconv.cli.options import DEFAULT_BUILD, DEFAULT_LAYERS, Build, Layers, load_classifier, refuse, refuse_fused
from leanconv.cli.output import show
from leanconv.cli.words import Switch, Words, require_safetensors, split_operators, split_shape

if TYPE_CHECKING:
    from leanconv.surgery import Fusion


def plan(
    model: str,
    operator: str,
    /,
    *,
    layers: Layers = DEFAULT_LAYERS,
    build: Build = DEFAULT_BUILD,
    out: Path | None = None,
) -> None:
    """Says for each layer of a network whether an operator takes it, or why not. Nothing is changed.

    For example:

        leanconv plan resnet50 tied:blocks=2
        leanconv plan resnet50 tied --where "layer[34].*" --out plan.yaml

    Args:
        model: A name that `leanconv models` knows, "module:callable", "file.py:callable" or a checkpoint.
        operator: A name that `leanconv ops` knows, with settings if you like.
        out: YAML file for the plan, to be edited and carried out with `leanconv swap --plan`.
    """
    network, configuration = build.network(model)
    refuse_fused(model, configuration)
    made = layers.plan(network, operator, configuration)
    show(made)
    if out is not None:
        made.save(out)
        show(f"wrote {out}")


def swap(
    model: str,
    operator: str | None = None,
    /,
    *,
    plan: Path | None = None,
    layers: Layers = DEFAULT_LAYERS,
    build: Build = DEFAULT_BUILD,
    out: Path,
) -> None:
    """Changes the convolutions of a network and writes it as a checkpoint; weights are carried over where they can be.

    For example:

        leanconv swap resnet50 tied:blocks=2 --pretrained --out lean.safetensors
        leanconv swap runs/dense/model.safetensors --plan plan.yaml --out lean.safetensors

    Args:
        model: A name that `leanconv models` knows, "module:callable", "file.py:callable" or a checkpoint.
        operator: A name that `leanconv ops` knows, with settings if you like; or else give a plan.
        plan: YAML file that `leanconv plan` wrote.
        out: Checkpoint to write, FILE.safetensors.
    """
    if (operator is None) == (plan is None):
        raise ValueError("swap needs either an operator or --plan FILE")
    if plan:
        refuse(layers, "the plan says which layers are taken")
    require_safetensors(out)
    from leanconv.surgery import format_operator
    from leanconv.tasks import save_model

    network, configuration = build.network(model)
    refuse_fused(model, configuration)
    made = leanconv.Plan.load(plan) if plan else layers.plan(network, str(operator), configuration)
    configuration["operator"] = format_operator(made.operator, made.settings)
    configuration["plans"] = [*configuration.get("plans", []), made.to_yaml()]
    save_model(out, leanconv.swap(network, made, trained=build.trained(model)), configuration)
    show(made, f"wrote {out}")


def profile(
    *models: str,
    operators: Words = ("dense",),
    shape: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    channels_last: Switch = False,
    fused: Switch = False,
    training: Switch = False,
    latency: bool = True,
    rounds: int = 20,
    layers: Switch = False,
    build: Build = DEFAULT_BUILD,
) -> None:
    """Measures what networks cost: parameters, multiply-accumulates, activations, peak memory and milliseconds.

    Several are timed by turns and compared with the first.

    For example:

        leanconv profile resnet50 --operators dense,tied:blocks=2
        leanconv profile resnet18 resnet50 --channels-last --fused
        leanconv profile cifar_resnet20 --layers --no-latency

    Args:
        models: Names that `leanconv models` knows, "module:callable", "file.py:callable" or checkpoints.
        operators: Each network is measured with each of them, a list with commas in between.
        shape: Batch, channels, height, width of the input; by default one image of the first network's own size.
        device: Where to run: cpu, cuda, cuda:1.
        dtype: Of weights and input: float16, bfloat16, float32 or float64.
        channels_last: Lay weights and input out with the channels last.
        fused: Fold norms into convolutions first.
        training: Run a forward and a backward pass in training mode.
        latency: Time them, besides counting.
        rounds: Samples of each one's time.
        layers: Break each one down into its layers.
    """
    if not models:
        raise ValueError("profile needs at least one model, as in: leanconv profile resnet50")
    from leanconv.measure import Setting

    chosen = split_operators(operators)
    networks = {name: build.network(name) for name in models}
    first = networks[models[0]][1]
    size = split_shape(shape) if shape else (1, first["in_chans"], first["image_size"], first["image_size"])
    setting = Setting.of(size, channels_last=channels_last)
    variants = {}
    for name, (network, _) in networks.items():
        for operator in chosen:
            if operator == "dense":
                variants[name] = network
            else:
                plan = leanconv.plan(network, operator, example=setting.input())
                variants[f"{name} {operator}"] = leanconv.swap(network, plan)
    if fused:
        variants = {name: leanconv.fuse(setting.replica(net), setting.input()) for name, net in variants.items()}
    result = leanconv.profile(
        variants,
        size,
        latency=latency,
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        rounds=rounds,
        training=training,
    )
    show(*(result.layers(name) for name in variants if layers), result)


def fuse(checkpoint: Path, /, *, out: Path, ranges: Switch = False) -> None:
    """Folds the norms of a trained network into its convolutions, proves the result equal and writes it.

    For example:

        leanconv fuse runs/tied --out fused.safetensors
        leanconv fuse runs/tied --out fused.safetensors --ranges

    Args:
        checkpoint: Folder of a finished training, or FILE.safetensors that leanconv wrote.
        out: Checkpoint to write, FILE.safetensors.
        ranges: Show the ranges of the weights before and after, layer by layer, which matter to 8 bits.
    """
    require_safetensors(out)
    from leanconv.tasks import save_model
    from leanconv.tasks.checkpoint import fused_network

    network, configuration = load_classifier(checkpoint)
    fused = fused_network(network, configuration)
    record: Fusion = fused.fusion  # type: ignore[assignment]
    save_model(out, fused, {**configuration, "fused": list(record.kept)})
    show(record, record.ranges_table() if ranges else widest(record), f"wrote {out}")


def widest(record: Fusion, count: int = 3) -> str:
    """A line that names the layers whose weights are furthest apart."""
    rows = record.ranges_table().rows[:count]
    ranges = ", ".join(f"{layer} {over_median}" for layer, _, over_median, _ in rows)
    return f"largest weight over that of the median channel, before → after, at most: {ranges or 'no layer'}"
