"""The command line: one thin function a command. Each imports what it needs when it runs, so that help is instant."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError
from rich.console import Console, RenderableType

import leanconv
from leanconv.cli_options import (
    DEFAULT_BUILD,
    DEFAULT_LAYERS,
    Build,
    ComparisonOptions,
    Layers,
    RecipeOptions,
    Switch,
    TestOptions,
    Words,
    checkpoint_path,
    read_recipe,
    refuse,
    refuse_fused,
    require_safetensors,
    run_name,
    split_operators,
    split_shape,
)

app = App(
    name="leanconv",
    help="Makes convolutional networks leaner or stronger by changing their convolutions: swap them in any PyTorch "
    "model, train, see what was gained, fuse, ship.",
    version=leanconv.__version__,
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


def main(tokens: Sequence[str] | None = None) -> None:
    """Runs a command line, `sys.argv` by default.

    Ends the process with 2 and one line for a user's mistake (the environment variable LEANCONV_DEBUG=1 shows the
    traceback instead), with 130 when interrupted.
    """
    debugging = os.environ.get("LEANCONV_DEBUG", "0") != "0"
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except KeyboardInterrupt as interruption:
        stop(130, str(interruption) or "interrupted")
    except BrokenPipeError:
        # Python would flush the closed pipe once more on its way out, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (CycloptsError, ValueError, TypeError, OSError) as error:
        if debugging:
            raise
        stop(2, error)
    except ModuleNotFoundError as error:
        package = (error.name or "leanconv").partition(".")[0]
        if debugging or package == "leanconv":
            raise
        stop(2, f"this command needs {package}: pip install 'leanconv[train]'")


def stop(code: int, message: object) -> NoReturn:
    """Ends the process with one line on stderr."""
    print(f"leanconv: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(code)


def show(*what: RenderableType) -> None:
    """Prints, fitted to the width of the terminal if there is one."""
    console = Console(highlight=False, markup=False)
    for each in what:
        if console.is_terminal:
            console.print(each)
        else:
            print(each, flush=True)


@contextmanager
def resumable() -> Iterator[None]:
    """Says, when interrupted, that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; repeat the command to resume") from None


@app.command
def ops() -> None:
    """Lists the operators that networks can be changed with, and their settings.

    For example:

        leanconv ops
    """
    from leanconv.surgery import OPERATORS
    from leanconv.table import Table

    rows = [["dense", "", "the convolutions that the network has: nothing is changed"]]
    for operator in OPERATORS.values():
        settings = ", ".join(f"{key}={value}" for key, value in operator.defaults.items())
        rows.append([operator.name, settings, operator.summary])
    notes = ["Write NAME or NAME:SETTING=VALUE,... to choose one, such as tied:blocks=4."]
    show(Table(["operator", "settings", "what it does"], rows, notes=notes))


@app.command
def doctor() -> None:
    """Says which kernels run on this machine and why, and what is missing. Compiles the native ones if need be.

    For example:

        leanconv doctor
        LEANCONV_NATIVE=0 leanconv doctor
    """
    from leanconv.doctor import examine

    show(examine())


@app.command
def models(pattern: str | None = None, /) -> None:
    """Lists networks: leanconv's own or, with a pattern, all whose names match, timm's included.

    For example:

        leanconv models
        leanconv models "resnet*"

    Args:
        pattern: As in a shell: * stands for anything.
    """
    from leanconv.models import list_models
    from leanconv.models.create import unknown_model

    names = list_models(own=True) if pattern is None else list_models(pattern)
    if pattern is not None and not names:
        raise unknown_model(pattern)
    show("\n".join(names))


@app.command
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


@app.command
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


@app.command
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


@app.command
def train(*, recipe: Path | None = None, out: Path | None = None, options: RecipeOptions | None = None) -> None:
    """Trains one network on one data set, as a recipe says. Repeated, the same command resumes or shows the result.

    For example:

        leanconv train --operator tied:blocks=2 --epochs 5
        leanconv train --recipe recipes/cifar10.yaml --seed 1 --out runs/1
        leanconv train --data imagefolder:flowers --model resnet18 --pretrained

    Args:
        recipe: YAML file with the recipe; what it leaves out has its default.
        out: Folder for the record and the weights; by default one below runs/ that is named after the recipe.
    """
    from leanconv import tasks

    chosen = read_recipe(recipe, options)
    folder = out or Path("runs") / run_name(chosen)
    with resumable():
        result = tasks.train(chosen, folder)
    show(f"accuracy {result.accuracy:.2%} after {result.seconds:.0f} s of training; see {folder}")


@app.command(name="eval")
def evaluate(checkpoint: Path, /, *, options: TestOptions | None = None) -> None:
    """Tests a trained network: accuracy on all test images and on each class.

    For example:

        leanconv eval runs/tied
        leanconv eval model.safetensors --data imagefolder:flowers --batch-size 32

    Args:
        checkpoint: Folder of a finished training, or FILE.safetensors that leanconv wrote.
    """
    from leanconv import tasks

    show(tasks.evaluate(checkpoint, **(options or {})))


@app.command
def compare(
    *,
    recipe: Path | None = None,
    operators: Words = (),
    seeds: int = 2,
    out: Path = Path("runs/compare"),
    options: ComparisonOptions | None = None,
) -> None:
    """Trains one network with each operator alike, and says in a table and a report what each gives for what it costs.

    Without arguments: a CIFAR ResNet-20 on handwritten digits, in minutes. Repeated, the same command resumes.

    For example:

        leanconv compare
        leanconv compare --operators dense,tied:blocks=8 --seeds 3 --epochs 20
        leanconv compare --model resnet18 --data imagefolder:flowers

    Args:
        recipe: YAML file with the recipe; what it leaves out has its default.
        operators: A list with commas in between; by default the network as it is, and those that leanconv adds.
        seeds: Trainings with each operator, with seeds from 0.
        out: Folder for the trainings, the results and the report.
    """
    from leanconv.report import write_report
    from leanconv.tasks import comparing

    chosen = read_recipe(recipe, options)
    with resumable():
        comparison = comparing.compare(
            chosen, split_operators(operators) if operators else None, range(seeds), out
        )
        report = write_report(comparison, out)
    show(comparison, f"report: {report}")


@app.command
def fuse(checkpoint: Path, /, *, out: Path) -> None:
    """Folds the norms of a trained network into its convolutions, proves the result equal and writes it.

    For example:

        leanconv fuse runs/tied --out fused.safetensors

    Args:
        checkpoint: Folder of a finished training, or FILE.safetensors that leanconv wrote.
        out: Checkpoint to write, FILE.safetensors.
    """
    require_safetensors(out)
    from leanconv.surgery import Fusion
    from leanconv.tasks import load_model, save_model
    from leanconv.tasks.checkpoint import fused_network

    network, configuration = load_model(checkpoint_path(checkpoint))
    fused = fused_network(network, configuration)
    record: Fusion = fused.fusion  # type: ignore[assignment]
    save_model(out, fused, {**configuration, "fused": list(record.kept)})
    show(str(record), f"wrote {out}")


if __name__ == "__main__":
    main()
