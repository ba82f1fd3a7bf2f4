"""Which implementation a call of a fused operator runs: Triton's kernels or plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef, custom_op

_by_triton: ContextVar[bool] = ContextVar("by_triton", default=False)
_operators: dict[str, CustomOpDef] = {}


def operator(name: str, mutates: set[str]) -> Any:
    """Decorator: define `torch.ops.fasthg.<name>`, which writes the arguments named in `mutates`."""

    def define(function: Any) -> CustomOpDef:
        _operators[name] = custom_op(f"fasthg::{name}", mutates_args=mutates)(function)
        return _operators[name]

    return define


def implementation(activations: Tensor) -> Any:
    """A module with a function for each operator: `kernels.triton.launchers` on CUDA, `kernels.ops.plain` elsewhere."""
    if activations.is_cuda or (_by_triton.get() and activations.dtype != torch.float64):
        from fasthg.kernels.triton import launchers

        return launchers
    from fasthg.kernels.ops import plain

    return plain


@contextmanager
def by_triton() -> Iterator[None]:
    """In the block the operators go to their Triton kernels on the CPU as well, float64 excepted.

    That is for calls that are recorded, and for Triton's interpreter (TRITON_INTERPRET=1 before Triton is imported).
    """
    token = _by_triton.set(True)
    with ExitStack() as stack:
        for defined in _operators.values():
            if "cpu" in defined._backend_fns:
                stack.enter_context(defined.set_kernel_enabled("cpu", enabled=False))
        try:
            yield
        finally:
            _by_triton.reset(token)
