"""`fasthg list --weights`: the weights that have a name."""

from __future__ import annotations

from typing import Any

import torch
from rich.table import Table

from fasthg.network.checkpoint import load_config, read_metadata, variant_name
from fasthg.network.flops import count_parameters
from fasthg.network.load import SHIPPED, WEIGHTS_DIR
from fasthg.network.model import HourglassNet
from fasthg.network.published import PUBLISHED, by_hand_at, kept_at
from fasthg.network.variants import HourglassConfig


def weights_to_dict() -> dict[str, Any]:
    """Network, size, published PCKh, licence and whereabouts of all weights by name, JSON-able."""
    found: dict[str, Any] = {}
    for name, file in SHIPPED.items():
        path = WEIGHTS_DIR / f"{file}.safetensors"
        about = read_metadata(path)
        found[name] = {
            "network": _network(load_config(path)),
            "megabytes": round(path.stat().st_size / 1e6, 1),
            "pckh": None,
            "pckh_by": about.get("pckh", ""),
            "licence": about.get("licence", "as fasthg's"),
            "about": about.get("about", ""),
            "where": "ships",
            "url": None,
        }
    for name, entry in PUBLISHED.items():
        fetched = "fetched" if kept_at(name).is_file() else "fetched when used"
        found[name] = {
            "network": _network(entry.config),
            "megabytes": _megabytes(entry.config),
            "pckh": entry.pckh,
            "pckh_by": entry.by,
            "licence": entry.licence,
            "about": "",
            "where": fetched if entry.digest or kept_at(name).is_file() else f"by hand, at {by_hand_at(name)}",
            "url": entry.url,
        }
    return found


def _network(config: HourglassConfig) -> str:
    return variant_name(config) or f"{config.num_stacks} stacks of {config.num_feats}"


def _megabytes(config: HourglassConfig) -> float:
    """Of the network in float32, as it is kept once it is converted."""
    with torch.device("meta"):
        return round(4 * count_parameters(HourglassNet(config)) / 1e6, 1)


def weights_table(content: dict[str, Any]) -> Table:
    """The weights, one a row; where licences and places are long, below each other."""
    table = Table(
        title="Weights by name; PCKh@0.5 as published, of MPII's validation people where nothing else is said"
    )
    for column in ("name", "network", "MB", "PCKh", "licence", "where"):
        table.add_column(column, justify="right" if column == "MB" else "left", overflow="fold")
    for name, row in content.items():
        pckh = " ".join(filter(None, ["" if row["pckh"] is None else f"{row['pckh']:.2f}", row["pckh_by"]])) or "-"
        where = "\n".join(filter(None, [row["where"], row["about"], row["url"]]))
        table.add_row(name, row["network"], f"{row['megabytes']:.1f}", pckh, row["licence"], where)
    return table
