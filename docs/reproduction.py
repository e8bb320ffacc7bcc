"""Writes reproduction.md and the tables of networks.md: `python docs/reproduction.py`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import published
import timm
from counting import Comparison, build, macs, params, table

from leanconv.cli.catalogue import description
from leanconv.models import list_models

DOCS = Path(__file__).parent

INTRODUCTION = """\
# The count table

What the papers say that their networks cost, beside what leanconv's networks cost. Nothing here is an accuracy.

* **params**: all of a network's parameters.
* **MACs**: multiply-accumulates of convolutions and linear layers for one image, of 224x224 pixels, or of 32x32 for the
  CIFAR networks. What these papers call FLOPs are multiply-accumulates.
* Some papers used a tool that counts otherwise. There the figures are held against that tool's rule, and MACs stand
  beside.
* **✓**: our count, rounded to the published digits, is the published figure. **✓ cut**: it is, with the further digits
  cut off instead of rounded. **✗**: it isn't, and the last column says why. The marks are computed.
* A row without a figure has nothing published to compare with, or nothing that could be found.

`python docs/reproduction.py` counts everything anew (tensors have shapes only, nothing is computed) and writes this
page and the tables of [networks.md](networks.md). `tests/models/test_reproduction.py` does the same and compares."""

PAPERS: dict[str, tuple[str, Callable[[], list[Comparison]]]] = {
    "Tied block convolution: attention": (
        "Wang & Yu, AAAI 2021, [arXiv 2009.12021](https://arxiv.org/abs/2009.12021).", published.tied_attention),
    "Tied block convolution: networks": ("The same paper.", published.tied_networks),
    "Decoupled dynamic filters": (
        "Zhou et al., CVPR 2021, [arXiv 2104.14107](https://arxiv.org/abs/2104.14107).", published.dynamic),
    "Asymmetric convolution blocks (ACNet)": (
        "Ding et al., ICCV 2019, [arXiv 1908.03930](https://arxiv.org/abs/1908.03930).", published.asymmetric),
    "Ghost modules": ("Han et al., CVPR 2020, [arXiv 1911.11907](https://arxiv.org/abs/1911.11907).", published.ghost),
    "Split convolutions (SPConv)": (
        "Zhang et al., IJCAI 2020, [arXiv 2006.12085](https://arxiv.org/abs/2006.12085).", published.split),
}
MARKED = re.compile(r"<!-- networks: (\S+) -->\n+(?:\|.*\n)*")


def sections() -> dict[str, list[Comparison]]:
    """The tables of each paper, counted."""
    return {title: tables() for title, (_, tables) in PAPERS.items()}


def page(counted: dict[str, list[Comparison]]) -> str:
    """The whole of reproduction.md."""
    parts = [INTRODUCTION]
    for title, tables in counted.items():
        parts += [f"## {title}", PAPERS[title][0], *map(str, tables)]
    return "\n\n".join(parts) + "\n"


def with_tables(text: str) -> str:
    """The text of networks.md with its tables counted anew: each follows a comment with a pattern for its networks."""
    return MARKED.sub(lambda mark: f"<!-- networks: {mark[1]} -->\n\n{networks(mark[1])}\n", text)


def networks(pattern: str) -> str:
    """The table of those of leanconv's networks whose names match a pattern."""
    lines = []
    for name in list_models(pattern, own=True):
        what, model = description(timm.model_entrypoint(name))[0], build(name)
        lines.append([f"`{name}`", what, f"{params(model):,}", f"{macs(model):,}"])
    return table(["name", "what it is", "params", "MACs"], lines)


def main() -> None:
    for path, text in ((DOCS / "reproduction.md", page(sections())),
                       (DOCS / "networks.md", with_tables((DOCS / "networks.md").read_text(encoding="utf-8")))):
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
