"""Tables that the command line prints: the variants, and what this machine can run."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table

from fasthg.network.flops import count_flops, count_parameters
from fasthg.network.model import HourglassNet
from fasthg.network.variants import INPUT_SIZE, VARIANTS, HourglassConfig


def variants_to_dict() -> dict[str, Any]:
    """Every variant's architecture, parameters, GFLOPs of one 256x256 image, and whether weights ship for it."""
    from fasthg.network.checkpoint import WEIGHTS_DIR

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
    import torch

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


def machine_tables(content: dict[str, Any]) -> Group:
    """What the machine is, and every path with each precision: runs, or why not."""
    cpu = content["cpu"]
    facts = Table(show_header=False, title="This machine")
    facts.add_row("fasthg", f"{content['fasthg']}, Python {content['python']}")
    facts.add_row("libraries", ", ".join(f"{name} {version}" for name, version in content["libraries"].items()))
    facts.add_row(
        "CPU", f"{cpu['model']}: {cpu['cores']} cores, {cpu['threads']} threads used, {content['memory_gb']} GB"
    )
    facts.add_row("CPU features", f"{' '.join(cpu['features']) or 'not known'} (PyTorch uses {cpu['pytorch_uses']})")
    gpus = [f"{gpu['name']} (compute {gpu['compute']}, {gpu['memory_gb']} GB)" for gpu in content["gpus"]]
    facts.add_row("GPU", ", ".join(gpus) or "none that PyTorch can use")
    native = content["native_operators"]
    facts.add_row(
        "compiled operators", native if native == "built" else f"NOT BUILT, the slow reference runs: {native}"
    )
    kept = content["measurements"]
    facts.add_row("measured", f"{kept['kept']} times in {kept['file']}; python -m bench.sweep adds to them")
    facts.add_row("auto takes", _grouped(content["auto"]))
    paths = Table(title="Execution paths")
    for column in ("path", "device", "precision", "here", "what it is"):
        paths.add_column(column)
    for name, path in content["paths"].items():
        first = True
        for device, precisions in path["devices"].items():
            for precision, answer in precisions.items():
                here = answer if answer == "runs" else f"no: {answer}"
                paths.add_row(name if first else "", device, precision, here, path["summary"] if first else "")
                first = False
    return Group(facts, paths)


def _grouped(choices: dict[str, str]) -> str:
    """ "channels_last (original, small); openvino:bf16 (feats64)"."""
    paths = dict.fromkeys(choices.values())
    return "; ".join(f"{path} ({', '.join(v for v, p in choices.items() if p == path)})" for path in paths)
