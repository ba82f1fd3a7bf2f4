"""One photograph of a run, and what a run goes on without."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from fasthg.errors import FasthgError
from fasthg.pixels.image import Image
from fasthg.predict.boxes import Boxes

log = logging.getLogger("fasthg")


@dataclass(frozen=True)
class Photo:
    """One photograph, or one picture of several in a file, that is loaded when its turn comes.

    name    the file as it was given; "array 3" for the fourth of several images that have no name
    load    gives the pixels, as often as it is called; raises FasthgError where there are none
    frame   number of the picture in its video or file, from 0; None for a photograph
    time    second at which it is shown; None where nothing says it
    boxes   people [P, 4]; None where the whole image is one person
    stated  width and height of the image that the boxes were drawn on, where their file says it
    held    bytes of pixels that `load` keeps in memory
    """

    name: str
    load: Callable[[], Image]
    frame: int | None = None
    time: float | None = None
    boxes: Boxes | None = None
    stated: tuple[int, int] | None = None
    held: int = 0


@dataclass
class LeftOut:
    """What a run has gone on without: counted, and the first `named` in a log line each; where `strict`, an error."""

    strict: bool = False
    named: float = math.inf
    count: int = field(default=0, init=False)
    _calls: int = field(default=0, init=False)

    def __call__(self, message: object, count: int = 1) -> None:
        if self.strict:
            raise message if isinstance(message, FasthgError) else FasthgError(str(message))
        self.count, self._calls = self.count + count, self._calls + 1
        if self._calls <= self.named:
            log.warning("left out: %s", message)
        elif self._calls == self.named + 1:
            log.warning("left out: more, which are counted but not named")
