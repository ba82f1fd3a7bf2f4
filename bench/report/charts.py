"""The report's charts: SVG, one colour for each path throughout."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from bench.measure.record import Row
from bench.report.tables import path_label

#: Colours of a qualitative palette that stays distinct for colour-blind readers (Okabe and Ito), and darker ones.
COLOURS = {
    "eager": "#8c8c8c",
    "channels_last": "#56b4e9",
    "amp": "#0072b2",
    "compile": "#cc79a7",
    "fused": "#009e73",
    "onnxruntime": "#e69f00",
    "openvino": "#d55e00",
    "ncnn": "#7f6000",
    "tensorrt": "#6a3d9a",
    "torch_tensorrt": "#000000",
}
#: Share of white in a path's further precisions, by which they are told from its first.
LIGHTER = {"fp32": 0.0, "fp16": 0.0, "int12": 0.25, "bf16": 0.4, "bf16+int12": 0.6, "int8": 0.75, "int8+int12": 0.75}
OTHERS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # of series that are no paths


def colour_of(label: str, place: int = 0) -> str:
    """The colour of a path ("openvino:bf16") in every chart; of anything else the `place`-th."""
    path, _, precision = label.partition(":")
    if path not in COLOURS:
        return OTHERS[place % len(OTHERS)]
    white = 0.0 if path == "amp" else LIGHTER.get(precision, 0.0)
    parts = (int(COLOURS[path][i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * white):02x}" for part in parts)


def speed_chart(rows: Sequence[Row]) -> str:
    """Images a second of every path, a group of bars for each variant; logarithmic, since variants differ tenfold."""
    figure, axes = figure_of(width=9.6, height=4.2)
    variants = list(dict.fromkeys(row.variant for row in rows))
    paths = list(dict.fromkeys(path_label(row) for row in rows))
    width = 0.84 / max(1, len(paths))
    for number, path in enumerate(paths):
        found = {row.variant: row.images_s for row in rows if path_label(row) == path}
        places = [i - 0.42 + (number + 0.5) * width for i, variant in enumerate(variants) if variant in found]
        heights = [found[variant] for variant in variants if variant in found]
        axes.bar(places, heights, width * 0.92, label=path, color=colour_of(path))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(plain_numbers())
    axes.yaxis.set_minor_formatter(plain_numbers(only=(2, 5)))
    axes.set_ylabel("images/s")
    axes.set_xticks(range(len(variants)), [_wrapped(variant) for variant in variants])
    axes.set_xlim(-0.6, len(variants) - 0.4)
    axes.tick_params(axis="both", which="both", labelsize=8.5)
    axes.legend(ncols=min(5, len(paths)), fontsize=8.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return to_svg(figure)


def parity_chart(rows: Sequence[Row]) -> str:
    """Speed-up over eager against the distance from eager's heatmaps: what each step of speed costs in exactness; ""
    where nothing was measured beside eager."""
    figure, axes = figure_of(width=9.6, height=3.6)
    eager = {(row.variant, row.batch_size): row.images_s for row in rows if row.path == "eager"}
    paths = list(dict.fromkeys(path_label(row) for row in rows))
    for path in paths:
        points = [
            (max(row.error, 1e-8), row.images_s / base)
            for row in rows
            if path_label(row) == path and row.error is not None and row.images_s
            if (base := eager.get((row.variant, row.batch_size)))
        ]
        if points and path != "eager:fp32":
            axes.scatter(*zip(*points), s=42, label=path, color=colour_of(path), edgecolors="white")
    if not axes.collections:
        return ""
    axes.set_xscale("log")
    axes.set_xlabel("relative L2 distance of the heatmaps from eager fp32")
    axes.set_ylabel("times eager's images/s")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return to_svg(figure)


def figure_of(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5)
    return figure, axes


def to_svg(figure: Any) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fasthg", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = re.sub(r"^.*?(?=<svg )", "", buffer.getvalue(), flags=re.DOTALL)
    return re.sub(r'(<svg [^>]*?)width="[^"]+" height="[^"]+"', r"\1", svg, count=1)


def plain_numbers(only: tuple[int, ...] | None = None) -> Any:
    from matplotlib.ticker import FuncFormatter

    def form(value: float, _position: int) -> str:
        leading = int(f"{value:e}"[0])
        return f"{value:g}" if only is None or leading in only else ""

    return FuncFormatter(form)


def _wrapped(variant: str) -> str:
    return variant.replace("-", "-\n", 1) if len(variant) > 12 else variant
