"""`fasthg list`: the variants, their size and their work."""

from __future__ import annotations

from typing import Any

import torch
from rich.table import Table

from fasthg.network.flops import count_flops, count_parameters
from fasthg.network.load import WEIGHTS_DIR
from fasthg.network.model import HourglassNet
from fasthg.network.variants import INPUT_SIZE, VARIANTS, HourglassConfig


def variants_to_dict() -> dict[str, Any]:
    """Every variant's architecture, parameters, GFLOPs of one 256x256 image, and whether weights ship for it."""
    return {
        name: {
            "num_stacks": config.num_stacks,
            "num_feats": config.num_feats,
            "depths": list(config.stack_depths),
            "num_blocks": config.num_blocks,
            "num_convs": config.num_convs,
            "norm": config.norm,
            "parameters": _parameters(config),
            "gflops": round(count_flops(config) / 1e9, 2),
            "weights_ship": (WEIGHTS_DIR / f"{name}.safetensors").is_file(),
        }
        for name, config in VARIANTS.items()
    }


def _parameters(config: HourglassConfig) -> int:
    with torch.device("meta"):
        return count_parameters(HourglassNet(config))


def variants_table(content: dict[str, Any]) -> Table:
    """The variants, one a row."""
    table = Table(title=f"Variants; GFLOPs of one {INPUT_SIZE}x{INPUT_SIZE} image, two for each multiply-add")
    for column in (
        "variant",
        "stacks",
        "features",
        "depths",
        "blocks",
        "convs",
        "norm",
        "parameters",
        "GFLOPs",
        "weights",
    ):
        table.add_column(column, justify="left" if column in ("variant", "depths", "norm") else "right")
    for name, row in content.items():
        depths = row["depths"]
        table.add_row(
            name,
            str(row["num_stacks"]),
            str(row["num_feats"]),
            str(depths[0]) if len(set(depths)) == 1 else ",".join(map(str, depths)),
            str(row["num_blocks"]),
            str(row["num_convs"]),
            row["norm"],
            f"{row['parameters']:,}",
            f"{row['gflops']:.2f}",
            "ship" if row["weights_ship"] else "",
        )
    return table
