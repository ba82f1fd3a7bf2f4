"""What every runtime takes (`Request`) and gives back (`Prepared`)."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

import torch
from torch import Tensor

from fasthg.errors import FasthgError
from fasthg.network.model import HourglassNet

Mode = Literal["latency", "throughput"]

_ready_in: set[int] = set()  # processes, this one and those it was forked off, that made a network ready

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_can_run() -> None:
    """Raise FasthgError in a process that was forked off one that had made a network ready.

    The libraries' threads stayed behind, and most of them would wait for those for ever, PyTorch's even to fill a
    tensor: it is asked before anything else is done.
    """
    if before := _ready_in - {os.getpid()}:
        raise FasthgError(
            f"process {os.getpid()} was forked off {max(before)}, which had made a network ready, and cannot run"
            " one; start it by 'spawn', or fork before the first network"
        )


@dataclass(frozen=True)
class Request:
    """One network to be made ready.

    model        in evaluation mode, fp32, on the CPU; a runtime copies it before it changes it
    example      float32 [N, 3, H, W], a batch like those to come
    device       where to run
    precision    one of the path's precisions on that device
    threads      CPU threads for one batch
    mode         "latency": one batch at a time, as soon as possible; "throughput": the most images a second
    calibration  float32 [M, 3, H, W] of real crops, for int8
    cache_dir    folder for converted and compiled networks; None to keep nothing between processes

    Raises FasthgError like `check_can_run`.
    """

    model: HourglassNet
    example: Tensor
    device: torch.device
    precision: str
    threads: int
    mode: Mode = "latency"
    calibration: Tensor | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        check_can_run()

    @contextlib.contextmanager
    def conversions(self) -> Iterator[Path]:
        """The folder for converted networks: the cache's, or one that goes again where nothing is kept."""
        if self.cache_dir is not None:
            yield self.cache_dir
            return
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


@dataclass(frozen=True)
class Prepared:
    """A network that is ready to run: images float32 [N, 3, H, W] -> final heatmaps float32 [N, J, H/4, W/4].

    Images may be none, and on any device; the heatmaps come back on the device that the path runs on. An end-to-end
    artefact takes crops uint8 [N, H, W, 3] instead and returns float32 [N, J, 3]: x and y in crop pixels, the score.

    path, device, precision   what really runs, for people to read
    details                   the library's version, threads and whatever else explains a measurement
    startup_s                 seconds from the request until the first batch was answered

    Several threads may call it; a process that was forked off may not, for the libraries' own threads stay behind.
    """

    run: Callable[[Tensor], Tensor] = field(repr=False)
    path: str
    device: str
    precision: str
    details: dict[str, str]
    startup_s: float = 0.0
    process: int = field(default_factory=os.getpid, repr=False)

    def __post_init__(self) -> None:
        _ready_in.add(self.process)

    def __call__(self, images: Tensor) -> Tensor:
        self.check_process()
        if not len(images):  # most libraries know no batch without images
            return self.run(images.new_zeros(1, *images.shape[1:]))[:0]
        return self.run(images)

    def __reduce__(self) -> NoReturn:
        raise FasthgError(f"{self.path} cannot be sent to another process; make it ready there, and send its weights")

    def check_process(self) -> None:
        """Raise FasthgError in a process that was forked off the one in which this was made ready."""
        if os.getpid() != self.process:
            raise FasthgError(
                f"{self.path} was made ready in process {self.process} and cannot run in process {os.getpid()}, forked"
                " off it; make it ready there, in a process started by 'spawn'"
            )


def one_at_a_time(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`run` for several threads, where its buffers serve every call: each caller waits for the one before."""
    lock = threading.Lock()

    def locked(images: Tensor) -> Tensor:
        with lock:
            return run(images)

    return locked


def answer(outputs: Sequence[Tensor]) -> Tensor:
    """What `Prepared` returns: heatmaps, or end-to-end keypoints [N, J, 2] and scores [N, J] joined to [N, J, 3]."""
    if len(outputs) == 1:
        return outputs[0].float()
    keypoints, scores = outputs
    return torch.cat([keypoints, scores[..., None]], dim=-1).float()


def resolve_device(device: str | torch.device) -> torch.device:
    """The device for "auto" (CUDA where there is one, else the CPU), "cpu", "cuda" or "cuda:1"."""
    if str(device) == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise FasthgError(f"unknown device {str(device)!r}; give auto, cpu, cuda or cuda:0") from None
    if chosen.type not in ("cpu", "cuda"):
        raise FasthgError(f"device {chosen} is not supported; give auto, cpu, cuda or cuda:0")
    return torch.device("cuda", chosen.index or 0) if chosen.type == "cuda" else chosen


def device_name(device: torch.device) -> str:
    """ "cpu", or for example "cuda:0 (NVIDIA H100)"."""
    return "cpu" if device.type == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})"
