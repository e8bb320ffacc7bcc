"""The public face: its names, what importing it costs, which floor may import which; and the README's code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import leanconv

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "leanconv"
HEAVY = ("timm", "torchvision", "lightning", "matplotlib", "triton", "sklearn", "torchmetrics", "cyclopts", "onnx")
FLOORS = {  # what each floor may import of the others
    "ops": set(),
    "nn": {"ops"},
    "surgery": {"ops", "nn"},
    "measure": {"ops", "nn"},
    "models": {"ops", "nn", "surgery"},
    "tasks": {"ops", "nn", "surgery", "measure", "models"},
    "report": {"ops", "nn", "surgery", "measure", "models", "tasks"},
    "cli": {"ops", "nn", "surgery", "measure", "models", "tasks", "report"},
}
LIBRARIES = {"timm": {"models", "tasks", "cli"}, "lightning": {"tasks"}, "matplotlib": {"report"}, "jinja2": {"report"},
             "cyclopts": {"cli"}}


def test_public_names() -> None:
    assert leanconv.__all__ == [
        "Plan", "__version__", "export_onnx", "export_package", "fuse", "measure", "nn", "ops", "plan", "profile",
        "quantize_onnx", "surgery", "swap", "verify"]
    assert all(hasattr(leanconv, name) for name in leanconv.__all__)
    with pytest.raises(AttributeError, match="no attribute 'swop'"):
        leanconv.swop  # noqa: B018


def test_importing_it_loads_nothing_heavier_than_torch() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import leanconv\n"
        f"for name in leanconv.__all__: getattr(leanconv, name)\n"
        f"print([name for name in {HEAVY} if name in sys.modules and name not in before])"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"


def imported(path: Path) -> set[str]:
    """The modules that a file imports, by their first two names for leanconv's own."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {".".join(name.split(".")[:2]) for name in names}


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_down(floor: str) -> None:
    for path in (SOURCE / floor).rglob("*.py"):
        for name in imported(path):
            library, _, other = name.partition(".")
            if library == "leanconv" and other in FLOORS:
                assert other == floor or other in FLOORS[floor], f"{path} imports {name}"
            assert floor in LIBRARIES.get(library, {floor}), f"{path} imports {library}"


@pytest.mark.slow
def test_the_code_of_the_readme_runs(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert "tied" in capsys.readouterr().out
    assert names["ship"].fusion.folded > 0
    assert (tmp_path / "lean.onnx").exists()
