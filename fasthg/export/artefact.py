"""Exported networks on disk: a folder with `metadata.json` and the files whose digests it holds.

`fasthg.export.export` writes such a folder, `Predictor` runs it. metadata.json:

    {"format": "fasthg-artefact", "version": 1,
     "kind": "onnx" | "openvino" | "tensorrt", "precision": "fp32", "end_to_end": false,
     "model": "model.onnx",                               the file to load; others may lie beside it
     "files": {"model.onnx": "<sha256>", ...},
     "config": {..., "skeleton": {...}},                  HourglassConfig
     "input": {"size": 256, "max_batch": 8, "mean": [...]},
     "joint_names": ["rank", ...], ...}                   and, for people, those of `_TOLD`

A field that is not known is an error, and no path in it may leave the folder. The digests show damage, not malice: who
can change a file can change its digest too, and an engine is code. Run artefacts of people whom you trust.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from fasthg.errors import BackendUnavailable, FasthgError
from fasthg.files import default_cache_dir, sha256, write_json
from fasthg.network.load import SHIPPED
from fasthg.network.model import HourglassNet
from fasthg.network.published import PUBLISHED
from fasthg.network.variants import HourglassConfig
from fasthg.runtimes.paths import PATHS, parse_path
from fasthg.runtimes.request import Mode, Prepared, Request, resolve_device

METADATA = "metadata.json"
FORMAT, VERSION = "fasthg-artefact", 1
_WANTED = ("kind", "precision", "end_to_end", "model", "files", "config", "input", "joint_names")
_TOLD = ("variant", "weights", "flip", "inputs", "outputs", "opset", "versions", "engine", "kept", "compared_through")
_FIELDS = {"format", "version", "comparison", *_WANTED, *_TOLD}
_KINDS: dict[str, type] = {"kind": str, "precision": str, "end_to_end": bool, "model": str, "files": dict}
_KINDS |= {"config": dict, "input": dict, "joint_names": list}
_PATHS = {"onnx": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt"}  # what runs each kind


@dataclass(frozen=True)
class Artefact:
    """An exported network whose files are as they were written.

    model       the file to load
    kind        "onnx", "openvino" or "tensorrt"
    end_to_end  normalisation and decoding are part of the graph
    size        side of the crops in pixels
    max_batch   images at a time, at most
    metadata    everything that metadata.json says; nothing before it is written
    """

    folder: Path
    model: Path
    kind: str
    precision: str
    end_to_end: bool
    config: HourglassConfig
    size: int
    max_batch: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


def is_artefact(path: str | Path) -> bool:
    """Whether `path` is a folder, or a metadata.json in one, rather than weights: a file, or a name that they have."""
    return str(path) not in {*SHIPPED, *PUBLISHED} and (Path(path).is_dir() or Path(path).name == METADATA)


def write_metadata(artefact: Artefact, **told: Any) -> None:
    """Write metadata.json for the files in an artefact's folder; `told` are further fields of it, see the module."""
    folder = artefact.folder
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != METADATA)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "kind": artefact.kind,
        "precision": artefact.precision,
        "end_to_end": artefact.end_to_end,
        "model": artefact.model.relative_to(folder).as_posix(),
        "files": {file.relative_to(folder).as_posix(): sha256(file) for file in files},
        "config": asdict(artefact.config),
        "input": {
            "size": artefact.size,
            "max_batch": artefact.max_batch,
            "colour": "RGB in 0..1 less the mean",
            "mean": list(artefact.config.mean),
        },
        "joint_names": list(artefact.config.skeleton.names),
    }
    write_json(folder / METADATA, content | told)


def read_artefact(path: str | Path) -> Artefact:
    """The artefact in a folder, its files checked against their digests.

    Raises FasthgError for a folder without a readable metadata.json, a field that is unknown or wrong, files that are
    outside the folder, missing or changed, and joint names that are not its skeleton's.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    metadata = _read_metadata(folder)
    for name, digest in metadata["files"].items():
        if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts:
            raise FasthgError(f"artefact {folder}: {METADATA} names {name}, outside the folder; export it again")
        if not (folder / name).is_file():
            raise FasthgError(f"artefact {folder}: {name} is missing; export it again")
        if sha256(folder / name) != digest:
            raise FasthgError(f"artefact {folder}: {name} was changed since it was written (digest); export it again")
    if metadata["model"] not in metadata["files"]:
        raise FasthgError(f"artefact {folder}: {metadata['model']} has no digest in {METADATA}; export it again")
    config, joints = _config(folder, metadata["config"]), tuple(map(str, metadata["joint_names"]))
    if joints != config.skeleton.names:
        raise FasthgError(
            f"artefact {folder}: its {len(joints)} joints ({', '.join(joints[:3])}, ...) are not those of its skeleton"
            f" {config.skeleton}; export it again"
        )
    return Artefact(
        folder=folder,
        model=folder / metadata["model"],
        kind=metadata["kind"],
        precision=metadata["precision"],
        end_to_end=metadata["end_to_end"],
        config=config,
        size=metadata["input"]["size"],
        max_batch=metadata["input"]["max_batch"],
        metadata=metadata,
    )


def check_path(artefact: Artefact, asked: str) -> None:
    """Raise FasthgError where a path is asked for by which an artefact is not run."""
    own = _PATHS.get(artefact.kind)
    if asked != "auto" and own and parse_path(asked)[0] != own:
        raise FasthgError(
            f"artefact {artefact.folder} is run by {own}, not {asked}; leave the path out or export again"
        )


def load_artefact(
    artefact: Artefact,
    device: str | torch.device = "auto",
    batch_size: int = 1,
    threads: int | None = None,
    mode: Mode = "latency",
) -> Prepared:
    """An artefact, ready to answer batches that are best of `batch_size`: see Prepared for what goes in and comes out.

    Raises BackendUnavailable where what runs it is not installed or cannot run here.
    """
    if artefact.kind not in _PATHS:
        raise FasthgError(f"artefact {artefact.folder} is of kind {artefact.kind!r}; known are {', '.join(_PATHS)}")
    path, target = PATHS[_PATHS[artefact.kind]], resolve_device(device)
    precision = artefact.precision if artefact.precision in path.on.get(target.type, ()) else None
    if reason := path.why_not(target, precision):  # a graph may also hold a precision that the path is not measured in
        raise BackendUnavailable(f"artefact {artefact.folder}: {reason}")
    with torch.device("meta"):
        model = HourglassNet(artefact.config)  # its shape alone: the weights are in the file
    request = Request(
        model=model,
        example=torch.zeros(min(batch_size, artefact.max_batch), 3, artefact.size, artefact.size),
        device=target,
        precision=artefact.precision,
        threads=threads or torch.get_num_threads(),
        mode=mode,
        cache_dir=default_cache_dir(),
    )
    runtime = importlib.import_module(f"fasthg.runtimes.{path.runtime}")
    return runtime.load(path.name, artefact.model, request)


def _read_metadata(folder: Path) -> dict[str, Any]:
    try:
        metadata = json.loads((folder / METADATA).read_text())
    except OSError:
        raise FasthgError(
            f"{folder} is no exported network: it has no {METADATA}; give a folder of fasthg export"
        ) from None
    except ValueError as error:
        raise FasthgError(f"{folder / METADATA} is damaged ({error}); export it again") from None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise FasthgError(f"{folder / METADATA} is of another format or version; export it again with this fasthg")
    if missing := [name for name in _WANTED if name not in metadata]:
        raise FasthgError(f"{folder / METADATA} lacks {', '.join(missing)}; export it again")
    _check_known(folder, metadata, _FIELDS, "field")
    for name, kind in _KINDS.items():
        if not isinstance(metadata[name], kind):
            raise FasthgError(f"{folder / METADATA}: {name} is {metadata[name]!r:.80}; export it again")
    _check_known(folder, metadata["input"], {"size", "max_batch", "colour", "mean"}, "field of input")
    for name in ("size", "max_batch"):
        if not isinstance(metadata["input"].get(name), int) or metadata["input"][name] < 1:
            raise FasthgError(f"{folder / METADATA}: input has no whole number {name}; export it again")
    return metadata


def _config(folder: Path, content: Mapping[str, Any]) -> HourglassConfig:
    known = {field.name for field in fields(HourglassConfig)} | {"num_joints"}
    _check_known(folder, content, known, "field of config")
    try:
        return HourglassConfig.from_dict(content)
    except (TypeError, ValueError, FasthgError) as error:
        raise FasthgError(f"{folder / METADATA}: {error}; export it again") from None


def _check_known(folder: Path, content: Mapping[str, Any], known: set[str], kind: str) -> None:
    if unknown := sorted(content.keys() - known):
        raise FasthgError(f"{folder / METADATA}: unknown {kind} {unknown[0]!r:.80}; export it again with this fasthg")
