"""Published weights by name: fetched once, checked by digest, converted and kept in the user's cache.

The addresses and the digests of bearpaw's networks are those of anibali/pytorch-stacked-hourglass, which publishes the
first eight hexadecimal digits of each file's SHA-256 in its name, as torch.hub does. That tells a download that was cut
short or altered; it is no signature. A file without a published digest is never fetched, but taken where its user puts
it. Whatever is fetched is read with `weights_only=True` and must have the architecture that it is listed with.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from filelock import FileLock

from fasthg.downloads import check_digest, download
from fasthg.errors import FasthgError
from fasthg.files import default_cache_dir, make_folder
from fasthg.network.checkpoint import check_same_network, read_metadata, save
from fasthg.network.convert import convert
from fasthg.network.variants import ORIGINAL, HourglassConfig

_RELEASE = "https://github.com/anibali/pytorch-stacked-hourglass/releases/download/v0.0.0"
_UMICH = "http://www-personal.umich.edu/~cnris"
_BEARPAW = "weights: not stated; code: GPL-3.0; learnt from MPII (research)"
_PRINCETON = "weights: not stated; code: BSD-3-Clause; learnt from MPII (research)"


@dataclass(frozen=True)
class Published:
    """A network that others published.

    config   its architecture
    url      its checkpoint
    digest   how the file's SHA-256 begins, hexadecimal; None where none is published
    pckh     PCKh@0.5 on MPII's validation people as its authors print it; None where they do not
    by       which mean and whose figure that is
    licence  as far as it is stated
    """

    config: HourglassConfig
    url: str
    digest: str | None
    pckh: float | None
    by: str
    licence: str

    @property
    def file(self) -> str:
        """Name under which the checkpoint is published."""
        return PurePosixPath(self.url).name


_BLACK = replace(ORIGINAL, stem_feats=(64, 64), mean=(0.0, 0.0, 0.0))

PUBLISHED: dict[str, Published] = {
    "bearpaw-hg1": Published(
        replace(ORIGINAL, num_stacks=1, depths=4),
        f"{_RELEASE}/bearpaw_hg1-ce125879.pth",
        "ce125879",
        None,
        "",
        _BEARPAW,
    ),
    "bearpaw-hg2": Published(
        replace(ORIGINAL, num_stacks=2, depths=4),
        f"{_RELEASE}/bearpaw_hg2-15e342d9.pth",
        "15e342d9",
        86.95,
        "mean14, bearpaw/pytorch-pose; anibali prints 87.33",
        _BEARPAW,
    ),
    "bearpaw-hg8": Published(
        ORIGINAL,
        f"{_RELEASE}/bearpaw_hg8-90e5d470.pth",
        "90e5d470",
        88.78,
        "mean14, bearpaw/pytorch-pose",
        _BEARPAW,
    ),
    "princeton-hg2": Published(
        replace(_BLACK, num_stacks=2, depths=4),
        f"{_UMICH}/original_2hg/checkpoint.pt",
        None,
        88.3,
        "pooled16, flipped",
        _PRINCETON,
    ),
    "princeton-hg8": Published(
        _BLACK, f"{_UMICH}/original_8hg/checkpoint.pt", None, 90.2, "pooled16, flipped", _PRINCETON
    ),
}


def kept_at(name: str) -> Path:
    """Where the converted network is kept."""
    cache = default_cache_dir()
    if cache is None:
        raise FasthgError(
            f"weights {name} are fetched into a cache, and there is none; name a folder by FASTHG_CACHE=DIR"
        )
    return cache / "weights" / f"{name}.safetensors"


def by_hand_at(name: str) -> Path:
    """Where a checkpoint that was fetched by hand belongs."""
    return kept_at(name).with_suffix(PurePosixPath(PUBLISHED[name].file).suffix)


def fetch(name: str) -> Path:
    """The converted network of a published name, fetched where it is not in the cache.

    Processes that ask at once fetch once. Raises FasthgError, with the address and the place for a fetch by hand, where
    the network cannot be reached or what came is not what was published.
    """
    kept, entry = kept_at(name), PUBLISHED[name]
    make_folder(kept.parent)
    with FileLock(kept.with_suffix(".lock")):
        if kept.is_file() and read_metadata(kept).get("source_sha256", "").startswith(entry.digest or ""):
            return kept
        given = by_hand_at(name)
        if given.is_file():
            check_digest(f"weights {name}", given, entry.digest or "", f"remove {given}, or fetch it again")
            _keep(given, name)
            return kept
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=f".{name}.") as folder:
            _keep(_download(name, Path(folder)), name)
    return kept


def _download(name: str, folder: Path) -> Path:
    """The checkpoint, whole and as published, in a folder."""
    entry, by_hand = PUBLISHED[name], by_hand_at(name)
    if entry.digest is None:
        raise FasthgError(
            f"weights {name}: nobody publishes a digest, so they are not fetched unseen;"
            f" fetch {entry.url} by hand and put it at {by_hand}"
        )
    file = folder / entry.file
    download(f"weights {name}", entry.url, entry.digest, file, by_hand)
    return file


def _keep(checkpoint: Path, name: str) -> None:
    """Convert a checkpoint into the cache."""
    entry, (config, state, metadata) = PUBLISHED[name], convert(checkpoint)
    check_same_network(f"weights {name}", config, entry.config)
    about = {"published_as": name, "source_file": entry.file, "source_url": entry.url, "licence": entry.licence}
    save(state, kept_at(name), config=config, metadata=metadata | about)
