"""Where a fused network's steps run: one after the other on the CPU, on two streams and in a graph on CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from fasthg.fused.plan import Step


class Streams(Protocol):
    """What runs the steps of a plan; `beside`: whether there is a side stream."""

    beside: bool

    def launch(self, step: Step) -> None:
        """Issue one step on its stream."""

    def capture(self, run: Callable[[], object]) -> Callable[[], Any]:
        """Record what `run` issues, after a first run that compiles; calling the result issues it again."""

    def enter(self) -> None:
        """Wait on the caller's stream for the call before, which may have come by another stream."""

    def leave(self) -> None:
        """Mark the end of a call on the caller's stream."""


class InOrder:
    """The CPU: a step is done when it returns. `beside` plans for a side stream all the same, as for a GPU."""

    def __init__(self, beside: bool = False) -> None:
        self.beside = beside

    def launch(self, step: Step) -> None:
        step.run()

    def capture(self, run: Callable[[], object]) -> Callable[[], Any]:
        return run

    def enter(self) -> None:
        pass

    def leave(self) -> None:
        pass


class OnCuda:
    """A CUDA device, whichever device is the current one: main steps on the caller's stream, the others beside it."""

    beside = True

    def __init__(self, device: torch.device, graph: bool) -> None:
        self.device, self.graph = device, graph
        with torch.cuda.device(device):
            self._side, self._done = torch.cuda.Stream(device), torch.cuda.Event()

    def launch(self, step: Step) -> None:
        main = torch.cuda.current_stream(self.device)
        if step.fork:
            self._side.wait_stream(main)
        if step.join:
            main.wait_stream(self._side)
        with torch.cuda.stream(self._side if step.stream == "side" else main):
            step.run()

    def capture(self, run: Callable[[], object]) -> Callable[[], Any]:
        if not self.graph:
            return run
        with torch.cuda.device(self.device):
            warm_up = torch.cuda.Stream(self.device)  # kernels are compiled before the capture, which may not compile
            warm_up.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(warm_up):
                run()
            torch.cuda.current_stream(self.device).wait_stream(warm_up)
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured, stream=torch.cuda.Stream(self.device)):
                run()

        def replay() -> None:
            with torch.cuda.device(self.device):
                captured.replay()

        return replay

    def enter(self) -> None:
        torch.cuda.current_stream(self.device).wait_event(self._done)

    def leave(self) -> None:
        self._done.record(torch.cuda.current_stream(self.device))
