"""The network as an ONNX graph: what ONNX Runtime, OpenVINO and TensorRT all start from."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor, nn

from fasthg.files import make_folder, write_bytes
from fasthg.fold import fold_norms
from fasthg.model import HourglassNet

OPSET = 20  # the newest that ONNX Runtime, OpenVINO and TensorRT all read without conversion
INPUT_NAME = "images"
OUTPUT_NAME = "heatmaps"


class FinalHeatmaps(nn.Module):
    """Images [N, 3, H, W] -> heatmaps [N, J, H/4, W/4] of the last stack, as a module of its own."""

    def __init__(self, model: HourglassNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.final(images)


def export_graph(module: nn.Module, example: Tensor, outputs: tuple[str, ...] = (OUTPUT_NAME,)):
    """`module` as an onnx.ModelProto: input "images", batch dynamic, every other size fixed to the example's.

    module   in evaluation mode, on the CPU; one input shaped as `example` [N, ...], outputs named by `outputs`
    """
    example = example if len(example) > 1 else torch.cat([example, example])  # a batch of 1 is taken for a constant
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def cached_graph(model: HourglassNet, example: Tensor, cache_dir: Path | None) -> Path:
    """ONNX file of the folded network's final heatmaps, exported unless `cache_dir` has it.

    Without a cache folder the file lies in the system's temporary folder, and the caller removes it.
    """
    if cache_dir is None:
        handle, name = tempfile.mkstemp(suffix=".onnx", prefix="fasthg-")
        os.close(handle)
        _write_graph(model, example, Path(name))
        return Path(name)
    make_folder(cache_dir)
    height, width = example.shape[2:]
    path = cache_dir / f"{model_digest(model)}-{height}x{width}.onnx"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            _write_graph(model, example, path)
    return path


def model_digest(model: HourglassNet) -> str:
    """What identifies a network and the way it is converted: configuration, weights and PyTorch's version."""
    digest = hashlib.sha256(repr((asdict(model.config), torch.__version__, OPSET)).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(
            value.detach().cpu().contiguous().view(torch.uint8).numpy() if value.ndim else str(value).encode()
        )
    return digest.hexdigest()[:16]


def _write_graph(model: HourglassNet, example: Tensor, path: Path) -> None:
    graph = export_graph(FinalHeatmaps(fold_norms(model).cpu()).eval(), example[:1])
    write_bytes(path, graph.SerializeToString())


@contextlib.contextmanager
def _quiet():
    """The exporter reports its progress and PyTorch's own deprecations; neither is for the user."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
