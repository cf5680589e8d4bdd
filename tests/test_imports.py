"""Who imports whom: the table in ARCHITECTURE.md, held by reading every import of every module."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

from fixtures import ROOT

LEAVES = {"avsbg.errors", "avsbg.atomic", "avsbg.progress", "avsbg.__version__"}
MAY_IMPORT = {
    "model": {"model"},
    "runtime": {"runtime"},
    "export": {"export", "model", "runtime"},
    "benchmarks": {"benchmarks", "model", "export", "runtime"},
}
EXPORT_ONLY = {"torch", "torchvision", "timm", "onnx", "onnxscript", "safetensors"}
HEAVY = EXPORT_ONLY | {"numpy", "pydantic", "av", "PIL", "onnxruntime"}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path, *, only_top_level: bool = False) -> set[str]:
    """The absolute names that a module imports; `from a import b` gives `a.b`.

    With `only_top_level`, those that importing the module executes: not inside functions, not under TYPE_CHECKING.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif only_top_level and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def ours(names: set[str]) -> set[str]:
    """The parts among the imported names, e.g. `runtime` of `avsbg.runtime.bundle.bundle`."""
    parts = {".".join(name.split(".")[:2]) for name in names if name.startswith("avsbg.")} - LEAVES
    return {part.removeprefix("avsbg.") for part in parts}


def test_imports_are_seen(tmp_path: Path) -> None:
    """The reader itself: it must see what it is to forbid."""
    module = tmp_path / "module.py"
    module.write_text(
        "from typing import TYPE_CHECKING\nimport torch.nn as nn\nfrom avsbg import model\n"
        "if TYPE_CHECKING:\n    import onnx\n"
        "def function():\n    from avsbg.export.graphs import ClipGraph\n"
    )
    assert {"torch.nn", "onnx", "avsbg.model", "avsbg.export.graphs.ClipGraph"} <= imports(module)
    assert ours(imports(module)) == {"model", "export"}
    assert imports(module, only_top_level=True) == {"typing.TYPE_CHECKING", "torch.nn", "avsbg.model"}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_parts_import_only_what_they_may(part: str) -> None:
    assert modules(part)
    wrong = {str(path): bad for path in modules(part) if (bad := ours(imports(path)) - MAY_IMPORT[part])}
    assert not wrong


def test_the_runtime_never_imports_torch_or_onnx() -> None:
    """Not even inside a function; only what the base installation and the engines' extras bring."""
    for path in modules("runtime"):
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & EXPORT_ONLY, path


def test_the_runtime_imports_at_top_level_only_what_the_base_installation_has() -> None:
    required = importlib.metadata.requires("avsbg") or []
    base = {re.split(r"[<>=!~; \[]", text)[0].lower() for text in required if "extra ==" not in text}
    base = (base - {"pillow"}) | {"pil", "pydantic_core"}
    for path in modules("runtime"):
        roots = {name.split(".")[0] for name in imports(path, only_top_level=True)}
        foreign = {root for root in roots if root not in sys.stdlib_module_names and root != "avsbg"}
        assert {root.lower() for root in foreign} <= base, path


def test_verbs_import_heavy_things_only_when_they_run() -> None:
    for path in modules("avsbg"):
        names = imports(path, only_top_level=True)
        assert not {name.split(".")[0] for name in names} & HEAVY, path
        assert ours(names) <= {"cli"}, path
