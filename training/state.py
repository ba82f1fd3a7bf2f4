"""The state of a training on disk: written as a whole, the one before kept, a damaged one recognised.

`last.pt` and `previous.pt` in the run's folder are plain `torch.save` dictionaries, read by
`torch.load(weights_only=True)`, so that nothing in them is ever executed.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from fasthg.console import note
from fasthg.errors import FasthgError
from fasthg.files import atomic_path

LAST, PREVIOUS = "last.pt", "previous.pt"
_FORMAT = 1


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the folder's last one; the one that was last becomes the previous one.

    Raises FasthgError where it cannot be written; then the state that was last still is.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, **state}, buffer)
    last = folder / LAST
    # Made in memory: PyTorch's own file writer reports a full disk in ways that cannot be told from other errors.
    with atomic_path(last) as aside:
        with open(aside, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if last.exists():
            _keep(last, folder / PREVIOUS)


def _keep(last: Path, previous: Path) -> None:
    """Give the last state its second name; the first stays until the new state takes it."""
    with atomic_path(previous) as second:
        second.unlink()
        try:
            os.link(last, second)
        except OSError:  # a file system without links
            shutil.copyfile(last, second)


def load_state(folder: Path) -> dict[str, Any]:
    """The newest state in `folder` that can be read; says so when it is not the last one.

    Raises FasthgError where there is none.
    """
    problems = []
    for name in (LAST, PREVIOUS):
        try:
            state = torch.load(folder / name, map_location="cpu", weights_only=True)
            if state["format"] != _FORMAT:
                raise FasthgError(f"{folder / name} has format {state['format']}, not {_FORMAT}; start a new run")
        except FileNotFoundError:
            problems.append(f"{folder} holds no {name}")
            continue
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
            problems.append(f"{folder / name} is damaged ({type(error).__name__})")
            continue
        for problem in problems:
            note(f"{problem}; going on from {folder / name} at step {state['step']}")
        return state
    raise FasthgError(
        f"nothing to resume: {'; '.join(problems)}; give the folder of a run with --out, or start without --resume"
    )


def check_same_run(saved: dict[str, Any], wanted: dict[str, Any], free: tuple[str, ...] = ()) -> None:
    """Raise FasthgError naming each value in which a saved run and the wanted one differ, `free` ones aside."""
    different = [
        f"{name} was {_short(saved.get(name))} and is {_short(wanted.get(name))}"
        for name in {**saved, **wanted}
        if name not in free and saved.get(name) != wanted.get(name)
    ]
    if different:
        raise FasthgError(
            f"cannot resume: {'; '.join(different)}; give the same, or start a new run with --init-weights"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 300 else text[:297] + "..."
