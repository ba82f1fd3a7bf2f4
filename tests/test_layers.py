"""The packages' order, kernels <- fasthg <- training <- bench, and what may be imported where."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("kernels", "fasthg", "training", "bench")
FILES = sorted(path.relative_to(ROOT) for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
OPTIONAL = {"onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "tensorrt", "tensorrt_rtx", "torch_tensorrt"}
OPTIONAL |= {"nvidia", "matplotlib", "av", "triton", "polygraphy", "pillow_heif"}


def imported(nodes: list[ast.stmt], file: Path) -> Iterator[str]:
    """Modules that the statements import, relative imports made absolute."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(file.parts[: len(file.parts) - node.level]) if node.level else ""
            yield ".".join(filter(None, (package, node.module)))


def statements(tree: ast.AST, at_import: bool) -> list[ast.stmt]:
    """Every statement, or only those that run when the module is imported (bodies of functions left out)."""
    found: list[ast.stmt] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt):
            found.append(node)
        type_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if at_import and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or type_checking):
            continue
        found.extend(statements(node, at_import))
    return found


def test_every_package_is_seen() -> None:
    assert {file.parts[0] for file in FILES} == set(LAYERS)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_run_one_way(file: Path) -> None:
    own = LAYERS.index(file.parts[0])
    tree = ast.parse((ROOT / file).read_text())
    modules = set(imported(statements(tree, at_import=False), file))
    above = sorted(module for module in modules if module.split(".")[0] in LAYERS[own + 1 :])
    assert not above, f"{file} imports {above}: kernels <- fasthg <- training <- bench"


@pytest.mark.parametrize("file", [file for file in FILES if "triton" not in file.parts], ids=str)
def test_optional_libraries_are_imported_where_they_are_used(file: Path) -> None:
    tree = ast.parse((ROOT / file).read_text())
    modules = set(imported(statements(tree, at_import=True), file))
    early = sorted(module for module in modules if module.split(".")[0] in OPTIONAL)
    assert not early, f"{file} imports {early} when it is imported; do it inside the function that needs it"


def test_a_wrong_import_would_be_seen() -> None:
    source = "def f():\n    from ..bench import sweep\n"
    assert list(imported(statements(ast.parse(source), False), Path("fasthg/x.py"))) == ["bench"]
