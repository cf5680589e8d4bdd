"""Names in the documentation lead somewhere: every path and every module that a page names exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from avsbg.runtime.bundle.precision import PRECISIONS
from fixtures import ROOT
from tools.docs_site import on_page_markdown

FOLDERS = "avsbg|benchmarks|cmake|docs|export|model|runtime|scripts|tests|tools"
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.splitlines() or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
PAGES = [name for name in TRACKED if name.endswith((".md", ".sh", ".toml", ".yml", ".cmake")) or name == "Makefile"]
# Paths as a reader types them: from the root, with a suffix; `{a,b}.py` and `*.cu` name several.
PATH = re.compile(
    rf"(?<![\w/.\-])((?:{FOLDERS})/[\w./*{{}},-]*\.(?:py|pyi|md|cpp|cu|cuh|h|sh|json|jsonl|toml|cmake|html))\b"
)
MODULE = re.compile(r"""(?<![\w/"'])avsbg(?!\.hp{0,2}\b)(?:\.[a-zA-Z_]\w*)+""")  # avsbg.h is a header
FILE = re.compile(r"`([a-z_]+\.py)`")
RIDDLE = re.compile(r"(What|Which|Who|Whose|How|Where|When|Why)\b")
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b(?!\.md)|PAGE\.md")  # MODULE, ROWS.jsonl: to be filled in by the reader


def expanded(path: str) -> list[str]:
    """`a/{b,c}.py` as `a/b.py` and `a/c.py`."""
    if (braces := re.search(r"\{([^{}]*)\}", path)) is None:
        return [path]
    return [
        one for part in braces[1].split(",") for one in expanded(path[: braces.start()] + part + path[braces.end() :])
    ]


def is_module_or_member(name: str) -> bool:
    """Whether `avsbg.a.b.Member` names a module, a package, or a name that occurs in one."""
    parts = name.split(".")[1:]
    for depth in range(len(parts), -1, -1):
        place = ROOT.joinpath("avsbg", *parts[:depth])
        source = next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
        if source is not None:
            rest = parts[depth:]
            return not rest or re.search(rf"\b{re.escape(rest[0])}\b", source.read_text(encoding="utf-8")) is not None
    return False


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_modules_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    names = {path for match in PATH.findall(text) for path in expanded(match)}
    missing = {name for name in names if not list(ROOT.glob(name))}
    missing |= {name for name in MODULE.findall(text) if not is_module_or_member(name)}
    files = {path.rsplit("/", 1)[-1] for path in TRACKED}
    missing |= {name for name in FILE.findall(text) if name not in files}
    assert not {name for name in missing if not PLACEHOLDER.search(name)}


def test_identifiers_that_the_architecture_names_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    code = [ROOT / name for name in TRACKED if name.endswith((".py", ".cpp", ".cu", ".cuh", ".h"))]
    words = {word for path in code if path.is_file() for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}
    identifiers = re.findall(r"`_?([A-Za-z]\w*(?:_\w+|[a-z][A-Z]\w*))`", text)
    assert identifiers
    assert not {name for name in identifiers if name not in words and f"_{name}" not in words}


def test_the_support_matrix_has_every_backend_and_precision() -> None:
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in ("docs/support.md", "README.md")]
    matrix, copy = (page.split("<!-- matrix -->")[1].split("<!-- /matrix")[0] for page in pages)
    assert copy == matrix
    header, _, *rows = matrix.strip().splitlines()
    assert header.split("|")[3:-1] == [f" {name} " for name in PRECISIONS]
    # In a process of its own: tests register backends of theirs.
    ask = "from avsbg.api import register_torch; from avsbg.runtime.backends import names; register_torch(); "
    ask += "print(*names())"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout
    assert {row.split("`")[1] for row in rows} == set(told.split())
    assert all(row.count("|") == header.count("|") for row in rows)


def test_a_site_names_what_lies_outside_it() -> None:
    text = "[ARCHITECTURE.md](../ARCHITECTURE.md), [the card](../../model/README.md#scores), [here](terms.md)"
    assert on_page_markdown(text) == "`ARCHITECTURE.md`, the card (`model/README.md`), [here](terms.md)"


def test_a_docstring_begins_with_a_noun_or_an_imperative() -> None:
    """No riddles: `What turns seconds into masks` names nothing."""
    found = []
    for name in TRACKED:
        if name.endswith(".py") and (ROOT / name).is_file():
            for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    first = (ast.get_docstring(node) or "").partition("\n")[0]
                    found += [f"{name}: {first}"] * bool(RIDDLE.match(first))
    assert not found
