"""An OpenVINO network with int8 convolutions, calibrated on real crops by NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from fasthg.errors import BackendUnavailable
from fasthg.runtimes.onnx_graph import NETWORK, within


def quantise(network: Any, crops: NDArray[Any], keep: Sequence[str] = ()) -> Any:
    """A quantised copy of an openvino.Model.

    crops  what the network's input takes, [M, ...]
    keep   names of modules that keep their precision

    Raises BackendUnavailable where NNCF is not installed.
    """
    try:
        import nncf
    except ImportError:
        raise BackendUnavailable("openvino:int8: nncf is not installed; pip install nncf") from None
    names = [operation.get_friendly_name() for operation in network.get_ordered_ops()]
    ignored = [name for name in names if not within(name, NETWORK) or within(name, keep)]
    with _quiet():
        return nncf.quantize(
            network,
            nncf.Dataset(list(crops[:, None])),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(crops),
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF logs its settings and draws bars of its own."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
