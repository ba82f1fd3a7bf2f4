"""`fasthg list`: the variants with their size and their work, or the weights that have a name."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from fasthg.cli.options import AsJson, print_result
from fasthg.files import default_cache_dir
from fasthg.network.checkpoint import load_config, read_metadata, variant_name
from fasthg.network.flops import count_flops, count_parameters
from fasthg.network.load import SHIPPED, WEIGHTS_DIR
from fasthg.network.published import PUBLISHED, by_hand_at, kept_at
from fasthg.network.variants import INPUT_SIZE, VARIANTS, HourglassConfig


def list_known(
    weights: Annotated[bool, typer.Option("--weights", help="The weights that have a name instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the network variants with their parameters and GFLOPs at 256x256, or the weights by name."""
    if weights:
        print_result(weights_to_dict(), as_json, weights_table)
    else:
        print_result(variants_to_dict(), as_json, variants_table)


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
            "parameters": count_parameters(config),
            "gflops": round(count_flops(config) / 1e9, 2),
            "weights_ship": (WEIGHTS_DIR / f"{name}.safetensors").is_file(),
        }
        for name, config in VARIANTS.items()
    }


def variants_table(content: dict[str, Any]) -> Table:
    """The variants, one a row."""
    table = Table(title=f"Variants; GFLOPs of one {INPUT_SIZE}x{INPUT_SIZE} image, two for each multiply-add")
    columns = "variant stacks features depths blocks convs norm parameters GFLOPs weights"
    for column in columns.split():
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
        found[name] = {
            "network": _network(entry.config),
            "megabytes": round(4 * count_parameters(entry.config) / 1e6, 1),  # in float32, as it is kept once converted
            "pckh": entry.pckh,
            "pckh_by": entry.by,
            "licence": entry.licence,
            "about": "",
            "where": _where(name),
            "url": entry.url,
        }
    return found


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


def _where(name: str) -> str:
    if default_cache_dir() is None:
        return "needs a cache: name a folder by FASTHG_CACHE=DIR"
    if kept_at(name).is_file():
        return "fetched"
    return "fetched when used" if PUBLISHED[name].digest else f"by hand, at {by_hand_at(name)}"


def _network(config: HourglassConfig) -> str:
    return variant_name(config) or f"{config.num_stacks} stacks of {config.num_feats}"
