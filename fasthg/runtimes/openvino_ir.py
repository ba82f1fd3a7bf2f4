"""OpenVINO's own files: int8 by NNCF, and marks on what has to stay fp32 where the rest runs in bf16."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from numpy.typing import NDArray

from fasthg.errors import BackendUnavailable
from fasthg.runtimes.onnx.graph import NETWORK, quiet, within

_TRUNK = ("Add", "MaxPool", "Interpolate")  # operators on the residual trunk


def save(network: Any, file: Path, precise: Sequence[str], trunk: Sequence[str] = ()) -> None:
    """Write an openvino.Model to `file` (.xml, with its weights in .bin beside it).

    What is named stays fp32 whatever precision the rest runs in. Python cannot set the attribute that OpenVINO reads
    for this, so it is written into the XML.

    precise  modules that stay fp32; layer normalisations do in any case
    trunk    modules whose additions, pooling and upsampling do
    """
    import openvino

    try:
        openvino.save_model(network, file, compress_to_fp16=False)
    except RuntimeError as error:
        if "iostream error" in str(error):  # all that it says of a disk that takes no more
            raise OSError(errno.ENOSPC, str(error)) from error
        raise
    tree = ElementTree.parse(file)
    layers = [(layer, layer.get("name", ""), layer.get("type", "")) for layer in tree.iter("layer")]
    norms = {name.rpartition("/")[0] for _layer, name, kind in layers if kind == "ReduceMean"}
    for layer, name, kind in layers:
        module, _, operator = name.rpartition("/")
        on_trunk = kind in _TRUNK and within(name, trunk) and not operator.startswith("Conv")
        if on_trunk or module in norms or within(name, precise):
            notes = layer.find("rt_info")
            notes = ElementTree.SubElement(layer, "rt_info") if notes is None else notes
            ElementTree.SubElement(notes, "attribute", name="precise", version="0")
    tree.write(file, encoding="utf-8", xml_declaration=True)


def quantise(network: Any, crops: NDArray[Any], keep: Sequence[str]) -> Any:
    """A copy of an openvino.Model with int8 convolutions, whose residual trunk keeps its precision.

    Rounded to int8 at every addition, the trunk gathers error from stack to stack: twice the heatmaps' error and four
    times the distance of the joints that move most, for 5 % of the time.

    crops  what the network's input takes, [M, ...]: the ranges of activations are those on these
    keep   modules that keep their precision

    Raises BackendUnavailable where NNCF is not installed.
    """
    try:
        import nncf
    except ImportError:
        raise BackendUnavailable("openvino:int8: nncf is not installed; pip install 'fasthg[openvino]'") from None
    operations = [(op.get_friendly_name(), op.get_type_name()) for op in network.get_ordered_ops()]
    ignored = [name for name, kind in operations if not within(name, NETWORK) or within(name, keep) or kind in _TRUNK]
    with quiet("nncf"):
        return nncf.quantize(
            network,
            nncf.Dataset(list(crops[:, None])),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(crops),
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )
