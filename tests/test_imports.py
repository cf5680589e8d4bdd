"""The module map in ARCHITECTURE.md, held by reading every import of every module."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from fixtures import ROOT

LEAVES = {"avsbg.errors", "avsbg.atomic", "avsbg.native_library", "avsbg.progress", "avsbg.__version__"}
MAY_IMPORT = {
    "model": {"model", "runtime"},
    "runtime": {"runtime"},
    "export": {"export", "model", "runtime"},
    "benchmarks": {"benchmarks", "model", "export", "runtime"},
}
# It routes to all others.
ENTRY_POINTS = {"benchmarks.__main__"}
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
    assert not [path for path in modules(part) if any(name.split(".")[0] == "tools" for name in imports(path))]


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


def _module(path: Path) -> str:
    """The dotted name of a file, without `avsbg.`: `runtime.bundle` of `runtime/bundle/__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_graph() -> dict[str, set[str]]:
    """Each module of the four parts with the modules that it imports, inside functions too."""
    files = {_module(path): path for part in MAY_IMPORT for path in modules(part)}
    found = {}
    for module, path in files.items():
        names = {name.removeprefix("avsbg.") for name in imports(path) if name.startswith("avsbg.")}
        # `from a import b` names the module a.b, or something in the module a.
        found[module] = {name if name in files else name.rpartition(".")[0] for name in names} & set(files)
    return found


@dataclass(frozen=True)
class Row:
    """A row of the module map: a subpackage, or a module that stands for itself, and what it may import."""

    purpose: str
    may_import: frozenset[str]


def module_map() -> dict[str, Row]:
    """The module map of ARCHITECTURE.md, by subpackage, from the lowest up.

    The last column names subpackages of the same part by their last name, and other parts as a whole.
    """
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.partition("## Module map\n")[2].partition("\n## ")[0]
    found: dict[str, Row] = {}
    for name, purpose, column in re.findall(r"^\| `([a-z_.]+)` \| (.+?) \|(.*)\|$", section, re.MULTILINE):
        part = name.partition(".")[0]
        allowed: set[str] = set()
        for other in re.findall(r"`([a-z_]+)`", column):
            whole = {row for row in found if row.partition(".")[0] == other}
            allowed |= {other} if other == part else whole or {f"{part}.{other}"}
        found[name] = Row(purpose, frozenset(allowed))
    return found


def _row_of(module: str, rows: Iterable[str]) -> str:
    """The row that a module belongs to: the longest name that contains it."""
    return max((row for row in rows if f"{module}.".startswith(f"{row}.")), key=len)


def test_the_module_map_lists_every_subpackage_with_its_docstring() -> None:
    rows = module_map()
    folders = {_module(path) for part in MAY_IMPORT for path in modules(part) if path.name == "__init__.py"}
    nested = {"runtime.backends.onnxruntime", "runtime.backends.tensorrt"}  # of the room that they lie in
    assert folders - nested - {"runtime"} == {row for row in rows if (ROOT / row.replace(".", "/")).is_dir()}
    assert {_module(path) for path in (ROOT / "runtime").glob("[a-z]*.py")} <= set(rows)
    for row, entry in rows.items():
        path = ROOT / row.replace(".", "/")
        text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
        assert (ast.get_docstring(ast.parse(text)) or "").splitlines()[0] == f"{entry.purpose}.", row


def test_the_module_map_allows_no_import_upwards() -> None:
    rows = module_map()
    order = list(rows)
    for number, (row, entry) in enumerate(rows.items()):
        assert entry.may_import <= set(order[:number]), row


def test_subpackages_import_only_what_the_module_map_allows() -> None:
    rows = module_map()
    wrong = [
        f"{module} imports {name}"
        for module, names in module_graph().items()
        for name in names - {"runtime"}
        if module not in ENTRY_POINTS
        if (ours := _row_of(module, rows)) != (theirs := _row_of(name, rows)) and theirs not in rows[ours].may_import
    ]
    assert not wrong


def test_no_import_cycle() -> None:
    """Neither between modules nor, since the map has an order, between subpackages; imports inside functions count."""
    TopologicalSorter(module_graph()).prepare()


def test_verbs_import_heavy_things_only_when_they_run() -> None:
    for path in modules("avsbg"):
        names = imports(path, only_top_level=True)
        assert not {name.split(".")[0] for name in names} & HEAVY, path
        assert ours(names) <= {"cli"}, path
