"""The order in which the rooms of the project may import each other, and what may be imported where."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("kernels", "fasthg", "training", "bench")
#: Every room, bottom to top: modules and packages of one line may import those of its own line and of the lines above.
ROOMS = """
fasthg.kernels.layout
fasthg.kernels.reference fasthg.kernels.parts
fasthg.kernels.cpu
fasthg.kernels.tuning
fasthg.kernels.triton
fasthg.kernels.ops
fasthg.version fasthg.errors
fasthg.files fasthg.console fasthg.ahead
fasthg.downloads
fasthg.pixels
fasthg.network
fasthg.data
fasthg.metrics
fasthg.fused
fasthg.runtimes
fasthg.export
fasthg.predict
fasthg.label
fasthg.cli
training.people training.synthesize training.make_crops
training.memory training.distributed training.loss training.optim
training.loading training.pack
training.recipes training.options
training.data training.teacher training.log training.state
training.learner
training.trainer
training.train
bench.measure
bench.study
bench.report
bench.study.distil
bench.sweep
bench.gpu
bench.exports bench.micro
"""
ORDER = {room: rank for rank, line in enumerate(ROOMS.split("\n")) for room in line.split()}
OPTIONAL = {
    *("onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "ncnn", "pnnx", "tensorrt", "tensorrt_rtx"),
    *("torch_tensorrt", "polygraphy", "nvidia", "triton", "matplotlib", "jinja2", "tensorboard", "simplejpeg", "h5py"),
    *("scipy", "yaml", "faster_coco_eval", "pandas", "tables", "sleap_io", "pillow_heif", "av", "ray", "pyarrow"),
}


def files() -> dict[str, Path]:
    """Every Python file by the name it is imported by; `kernels/` is imported as `fasthg.kernels`."""
    found = {}
    for path in sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = ("fasthg", *parts) if parts[0] == "kernels" else parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: path for name, path in found.items() if "fasthg/kernels" not in path.as_posix()}


FILES = files()


def statements(tree: ast.AST, at_import: bool) -> Iterator[ast.stmt]:
    """Every statement but those for type checkers alone, or only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.stmt):
            yield node
        if not at_import or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(node, at_import)


def imported(name: str, source: str, modules: Set[str], is_package: bool = False, at_import: bool = False) -> set[str]:
    """What a module imports: modules of the project by full name, others by what the statement says."""
    found = set()
    package = name.split(".") if is_package else name.split(".")[:-1]
    for node in statements(ast.parse(source), at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            inner = {alias.name: f"{base}.{alias.name}" for alias in node.names}
            found |= {full if full in modules else base for full in inner.values()}
    return found - {name}  # a package's own submodule of C++ has its name


def room_of(module: str) -> str | None:
    """The longest name of a room that the module is, or lies in."""
    return max((room for room in ORDER if f"{module}.".startswith(f"{room}.")), key=len, default=None)


def upward(module: str, imports: Set[str]) -> list[str]:
    """Those of a module's imports that lie in a room above its own."""
    own = ORDER[room_of(module) or ""]
    return sorted(name for name in imports if (room := room_of(name)) and ORDER[room] > own)


def circle(graph: Mapping[str, Set[str]]) -> list[str]:
    """Modules that import each other in a ring, the first again at the end; empty where there is none."""
    finished: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in finished:
            return []
        found = next(filter(None, (visit(other, [*trail, name]) for other in sorted(graph[name] & graph.keys()))), [])
        finished.add(name)
        return found

    return next(filter(None, (visit(name, []) for name in graph)), [])


def imports_of(name: str, at_import: bool = False) -> set[str]:
    path = FILES[name]
    return imported(name, path.read_text(), FILES.keys(), path.name == "__init__.py", at_import)


def test_every_file_has_a_room() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES.values()} == set(LAYERS)
    assert [name for name in FILES if room_of(name) is None and name not in ("fasthg", "training", "bench")] == []


@pytest.mark.parametrize("name", [name for name in FILES if room_of(name)])
def test_imports_run_one_way(name: str) -> None:
    above = upward(name, imports_of(name))
    assert not above, f"{name} imports {above}, which lie above it: see ROOMS in {Path(__file__).name}"


def test_no_circle() -> None:
    found = circle({name: imports_of(name) for name in FILES})
    assert not found, " -> ".join(found)


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("fasthg.kernels.triton.")])
def test_optional_libraries_are_imported_where_they_are_used(name: str) -> None:
    early = sorted(module for module in imports_of(name, at_import=True) if module.split(".")[0] in OPTIONAL)
    assert not early, f"{name} imports {early} when it is imported; do it inside the function that needs it"


def test_a_wrong_import_would_be_seen() -> None:
    source = "def f():\n    from ..cli import app\n    from fasthg import runtimes, no_module\n"
    found = imported("fasthg.data.x", source, {"fasthg.cli.app", "fasthg.runtimes"})
    assert found == {"fasthg.cli.app", "fasthg.runtimes", "fasthg"}
    assert upward("fasthg.data.x", found) == ["fasthg.cli.app", "fasthg.runtimes"]
    assert circle({"a": {"b"}, "b": {"c", "numpy"}, "c": {"b"}}) == ["b", "c", "b"]
