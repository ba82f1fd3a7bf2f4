"""The version of this package, which pyproject.toml reads from here, and those of the libraries around it."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

__version__ = "0.1.0"

#: The libraries that decide how fast a network runs.
LIBRARIES = (
    *("torch", "numpy", "triton", "onnx", "onnxruntime", "openvino", "nncf", "ncnn"),
    *("tensorrt", "tensorrt-rtx-cu13", "torch-tensorrt", "nvidia-dali-cuda130"),
)


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
