"""Whole networks side by side on a GPU, each peer at its best: half precision, channels last, as one CUDA graph.

    graph     the folded network by PyTorch's operators
    cudnn     the same, its bottlenecks by fused graphs of cuDNN's frontend: BN-ReLU; convolution, bias and ReLU;
              convolution, bias and addition
    compile   torch.compile with max-autotune: the path of that name
    fused     this project's kernels: the path of that name

All are timed in interleaved rounds, so that drift hits all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.gpu.checks import lively
from fasthg.errors import FasthgError
from fasthg.metrics.agreement import relative_error
from fasthg.network.fold import fold
from fasthg.network.model import Bottleneck, HourglassNet
from fasthg.network.precision import lower
from fasthg.network.variants import INPUT_SIZE, VARIANTS
from fasthg.runtimes.inductor import CudaGraphs
from fasthg.runtimes.paths import prepare

ROUNDS, CALLS = 5, 10  # rounds through all peers, timed calls of each in a round
TOLERANCE = 2e-2  # relative error of heatmaps beyond which a peer's time counts for nothing
Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PeerTime:
    """One peer's microseconds a batch: median, 10th and 90th percentile; why there are none."""

    peer: str
    variant: str
    batch_size: int
    median_us: float | None = None
    p10_us: float | None = None
    p90_us: float | None = None
    error: float | None = None
    problem: str = ""


def folded(model: HourglassNet) -> HourglassNet:
    """The folded network in float16, channels last, on the model's device."""
    half = lower(fold(model).to(memory_format=torch.channels_last), torch.float16)  # type: ignore[call-overload]
    return half.requires_grad_(False)


def graph(model: HourglassNet, images: Tensor) -> Run:
    """The folded network by PyTorch, as a CUDA graph."""
    torch.backends.cudnn.benchmark = True
    half = folded(model)

    @torch.inference_mode()
    def final(images: Tensor) -> Tensor:
        return half.final(images.contiguous(memory_format=torch.channels_last)).float()

    return _half_in(CudaGraphs(final))


def cudnn(model: HourglassNet, images: Tensor) -> Run:
    """The folded network with its bottlenecks by cuDNN's frontend, as a CUDA graph."""
    torch.backends.cudnn.benchmark = True
    half, frontend = folded(model), Frontend(images.device)
    for block in half.modules():
        if isinstance(block, Bottleneck) and isinstance(block.norms[0], nn.BatchNorm2d):
            block.forward = partial(_bottleneck, block, frontend)  # type: ignore[method-assign]

    @torch.no_grad()
    def final(images: Tensor) -> Tensor:
        return half.final(images.contiguous(memory_format=torch.channels_last)).float()

    return _half_in(CudaGraphs(final))


def _half_in(run: Run) -> Run:
    return lambda images: run(images.half())


def _bottleneck(block: Bottleneck, frontend: Frontend, x: Tensor) -> Tensor:
    norm = block.norms[0]
    assert isinstance(norm, nn.BatchNorm2d)
    out = frontend.scale_relu(x, norm)
    *convs, last = block.convs
    for conv in convs:
        out = frontend.conv(out, conv, relu=True)
    residual = frontend.conv(x, block.skip) if isinstance(block.skip, nn.Conv2d) else x
    return frontend.conv(out, last, added=residual)


class Frontend:
    """cuDNN's graphs, one for each operation and shape, over channels-last float16 tensors."""

    def __init__(self, device: torch.device) -> None:
        import cudnn

        self._cudnn, self._device = cudnn, device
        self._handle = cudnn.create_handle()
        self._graphs: dict[tuple[Any, ...], tuple[Any, list[Any], Any, Tensor]] = {}
        self._affines: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def scale_relu(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """ReLU of a normalisation in evaluation."""
        if norm not in self._affines:
            assert norm.running_var is not None
            assert norm.running_mean is not None
            scale = norm.weight.float() / (norm.running_var.float() + norm.eps).sqrt()
            shift = norm.bias.float() - norm.running_mean.float() * scale
            self._affines[norm] = scale.view(1, -1, 1, 1), shift.view(1, -1, 1, 1)

        def build(g: Any, x: Any, scale: Any, shift: Any) -> Any:
            return g.relu(input=g.add(a=g.mul(a=x, b=scale), b=shift))

        return self._call("scale_relu", build, torch.empty_like(x), x, *self._affines[norm])

    def conv(self, x: Tensor, conv: nn.Module, relu: bool = False, added: Tensor | None = None) -> Tensor:
        """A convolution with its bias and what follows."""
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        options = {
            "padding": list(conv.padding),
            "stride": list(conv.stride),
            "dilation": list(conv.dilation),
        }

        def build(g: Any, x: Any, weight: Any, bias: Any, *added: Any) -> Any:
            y = g.add(a=g.conv_fprop(image=x, weight=weight, **options), b=bias)
            y = g.add(a=y, b=added[0]) if added else y
            return g.relu(input=y) if relu else y

        out = torch.empty((x.shape[0], conv.out_channels, *x.shape[2:]), dtype=x.dtype, device=x.device).contiguous(
            memory_format=torch.channels_last
        )
        inputs = [x, conv.weight, conv.bias.view(1, -1, 1, 1), *([] if added is None else [added])]
        return self._call(("conv", relu, *conv.kernel_size), build, out, *inputs)

    def _call(self, name: Any, build: Callable[..., Any], out: Tensor, *inputs: Tensor) -> Tensor:
        key = (name, *((tuple(t.shape), t.stride(), t.dtype) for t in inputs))
        cudnn = self._cudnn
        cudnn.set_stream(handle=self._handle, stream=torch.cuda.current_stream(self._device).cuda_stream)
        if key not in self._graphs:
            g = cudnn.pygraph(
                handle=self._handle,
                io_data_type=cudnn.data_type.HALF,
                intermediate_data_type=cudnn.data_type.FLOAT,
                compute_data_type=cudnn.data_type.FLOAT,
            )
            names = [g.tensor_like(tensor) for tensor in inputs]
            y = build(g, *names)
            y.set_output(True).set_data_type(cudnn.data_type.HALF)
            y.set_dim(list(out.shape)).set_stride(list(out.stride()))
            g.build([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
            workspace = torch.empty(max(1, g.get_workspace_size()), dtype=torch.uint8, device=self._device)
            self._graphs[key] = g, names, y, workspace
        g, names, y, workspace = self._graphs[key]
        g.execute({**dict(zip(names, inputs)), y: out}, workspace, handle=self._handle)
        return out


def by_path(path: str, model: HourglassNet, images: Tensor) -> Run:
    """A path of the project."""
    return prepare(model, path, images, device=images.device, cache_dir=None)


PEERS: dict[str, Callable[[HourglassNet, Tensor], Run]] = {
    "graph": graph,
    "cudnn": cudnn,
    "compile": partial(by_path, "compile:fp16"),
    "fused": partial(by_path, "fused:fp16"),
}


def compare(variant: str, batch_size: int, device: torch.device, peers: Sequence[str] = tuple(PEERS)) -> list[PeerTime]:
    """Every peer of one network at one batch size, by CUDA events around each call, in interleaved rounds."""
    model = lively(VARIANTS[variant]).to(device)
    images = torch.rand(batch_size, 3, INPUT_SIZE, INPUT_SIZE, device=device) - 0.4
    with torch.inference_mode():
        expected = model.final(images[:4])
    runs: dict[str, Run] = {}
    problems: dict[str, str] = {}
    errors: dict[str, float] = {}
    for peer in peers:
        try:
            run = PEERS[peer](model, images)
            errors[peer] = relative_error(run(images)[:4], expected)
            if errors[peer] > TOLERANCE:
                raise FasthgError(f"its heatmaps are {errors[peer]:.1e} off")
            runs[peer] = run
        except Exception as error:  # whatever a library says; the others go on
            problems[peer] = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
    taken: dict[str, list[float]] = {peer: [] for peer in runs}
    for _ in range(ROUNDS):
        for peer, run in runs.items():
            taken[peer] += _microseconds(partial(run, images), device)
    times = []
    for peer in peers:
        p50, p10, p90 = np.percentile(taken[peer], (50, 10, 90)) if peer in runs else (None, None, None)
        times.append(PeerTime(peer, variant, batch_size, p50, p10, p90, errors.get(peer), problems.get(peer, "")))
    return times


def _microseconds(call: Callable[[], object], device: torch.device) -> list[float]:
    """Of each of some calls after one that warms up."""
    call()
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(CALLS)]
    for begin, end in marks:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize(device)
    return [1e3 * begin.elapsed_time(end) for begin, end in marks]
