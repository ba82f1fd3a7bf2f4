"""Blocks by Ray Data: one predictor an actor, on this machine or on a cluster.

Ray runs a block again whose actor or machine is lost; since a block's file is written as a whole under a name of its
own, that leaves nothing twice. Ray's usage reports are off, and a local run keeps to this machine's own address.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fasthg.console import note
from fasthg.errors import BackendUnavailable, FasthgError
from fasthg.label.items import Block
from fasthg.label.worker import Labeller

if TYPE_CHECKING:
    from fasthg.label.run import LabelOptions

LOCAL = "local"
_RETRIES = 3  # of a block whose actor is lost: one that ends its process each time has to come to an end
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_worker_niceness": "0",  # they are what the user waits for
}

_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: no address but 127.0.0.1, which is not looked up either

_NOWHERE = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"}


def run_by_ray(
    out: str, blocks: list[Block], predictor: dict[str, Any], options: LabelOptions
) -> Iterator[dict[str, Any]]:
    """The counts of each block, in the order in which they are done.

    Raises FasthgError for a cluster that cannot be reached or has too little for the actors, and where a block fails.
    """
    os.environ.update(_QUIET)
    if options.ray == LOCAL:
        os.environ[_LOOPBACK] = "0"
    import ray
    import ray.data
    from ray.exceptions import RayError

    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")  # it has no other name for retries yet
    _connect(options)
    try:
        on_gpu, actors, threads = _share(options, ray.cluster_resources())
        note(f"ray: {actors} actors, {'one GPU' if on_gpu else f'{threads} CPU threads'} each")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = ray.data.from_items([{"block": block} for block in blocks], override_num_blocks=len(blocks))
        settings = {"device": "cuda" if on_gpu else "cpu", "threads": threads, "mode": "throughput"}
        done = rows.map_batches(
            Labeller,
            fn_constructor_kwargs={"out": out, "options": predictor | settings},
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(blocks))),
            num_cpus=None if on_gpu else threads,
            num_gpus=1 if on_gpu else None,
            max_task_retries=_RETRIES,
        )
        yield from done.iter_rows()
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise FasthgError(f"ray: a block failed ({reason}); what is done is kept, and a restart goes on") from None
    finally:
        ray.shutdown()


def _connect(options: LabelOptions) -> None:
    """Start Ray on this machine's own address, or join a cluster."""
    import ray

    common: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if options.ray == LOCAL:
        with _no_way_out():
            ray.init(address=LOCAL, **common)
        return
    try:
        common.pop("include_dashboard")
        ray.init(address=options.ray, **common)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailable(f"ray at {options.ray}: {reason}; give the address that `ray start` printed") from None


@contextlib.contextmanager
def _no_way_out() -> Iterator[None]:
    """Ray's processes ask the cloud's metadata service, by HTTP, where they are: what they start with leads nowhere.

    Even with usage reports off, Ray 2.60 does so; a proxy at a closed port of this machine ends it without a look-up.
    """
    kept = {name: os.environ.get(name) for name in _NOWHERE}
    os.environ.update(_NOWHERE)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _share(options: LabelOptions, found: dict[str, float]) -> tuple[bool, int, int]:
    """Whether actors run on GPUs, how many there are, and the CPU threads of each.

    Raises FasthgError where the cluster has too little.
    """
    cpus, gpus = int(found.get("CPU", 0)), int(found.get("GPU", 0))
    on_gpu = options.device.startswith("cuda") or (options.device == "auto" and gpus > 0)
    if on_gpu:
        actors = options.actors or gpus
        if actors > gpus or not gpus:
            raise FasthgError(f"{actors or 1} actors need a GPU each, ray has {gpus}; give fewer --actors")
        return True, actors, options.threads or 1
    threads = options.threads or max(1, cpus // (options.actors or 1) if options.actors else min(2, cpus))
    actors = options.actors or max(1, cpus // threads)
    if actors * threads > cpus:
        raise FasthgError(f"{actors} actors of {threads} threads need {actors * threads} CPUs, ray has {cpus}")
    return False, actors, threads
