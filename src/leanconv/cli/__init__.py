"""The command line: one thin function a command. Each imports what it needs when it runs, so that help is instant."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError

import leanconv
from leanconv.cli.cam import cam
from leanconv.cli.check import check
from leanconv.cli.export import export, verify
from leanconv.cli.listing import doctor, models, ops, recipes
from leanconv.cli.networks import fuse, plan, profile, swap
from leanconv.cli.occlusion import occlusion
from leanconv.cli.quantize import quantize
from leanconv.cli.robustness import robustness
from leanconv.cli.similarity import similarity
from leanconv.cli.skeleton import skeleton
from leanconv.cli.training import compare, evaluate, train

__all__ = ["app", "main"]

app = App(
    name="leanconv",
    help="Makes convolutional networks leaner or stronger by changing their convolutions: swap them in any PyTorch "
    "model, train, see what was gained, fuse, ship.",
    version=leanconv.__version__,
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for command in (ops, doctor, models, recipes, plan, swap, profile, fuse, export, verify, quantize, train, compare,
                skeleton, robustness, similarity, cam, check, occlusion):  # fmt: skip
    app.command(command)
app.command(evaluate, name="eval")


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
        extra = "export" if package.startswith("onnx") else "train"
        stop(2, f"this command needs {package}: pip install 'leanconv[{extra}]'")


def stop(code: int, message: object) -> NoReturn:
    """Ends the process with one line on stderr."""
    print(f"leanconv: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(code)
