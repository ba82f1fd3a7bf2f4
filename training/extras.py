"""Libraries that a prediction does without, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from fasthg.errors import BackendUnavailable


def require(module: str, extra: str) -> Any:
    """The module of a library of an extra ("train" or "bench"); raises BackendUnavailable with the way to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailable(f"{module} cannot be imported ({error}); pip install 'fasthg[{extra}]'") from None
