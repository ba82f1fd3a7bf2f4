"""Files that others publish: fetched whole and as published, or refused in one line that says how to do it by hand."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

from fasthg.errors import FasthgError
from fasthg.files import sha256

log = logging.getLogger("fasthg")

_TIMEOUT_S = 60.0  # without a byte


def download(what: str, url: str, digest: str, file: Path, by_hand: Path) -> None:
    """Fetch `url` into `file`, whose folder is the caller's own.

    what     the file in words, for messages
    digest   how its SHA-256 begins, hexadecimal
    by_hand  where a user may put the file who has no connection from here

    Raises FasthgError, with the address and that place, where the host cannot be reached or what came is not what was
    published.
    """
    import pooch
    import requests

    way_out = f"fetch {url} by hand and put it at {by_hand}"
    log.info("fetching %s from %s", what, url)
    try:
        pooch.HTTPDownloader(chunk_size=1 << 20, timeout=_TIMEOUT_S)(url, str(file), None)
    except (requests.RequestException, OSError) as error:
        raise FasthgError(f"{what} cannot be fetched ({_reason(error, url)}); {way_out}") from None
    check_digest(what, file, digest, way_out)


def check_digest(what: str, file: Path, digest: str, way_out: str) -> None:
    """Raise FasthgError where a file's SHA-256 does not begin as published."""
    found = sha256(file)
    if not found.startswith(digest):
        raise FasthgError(
            f"{what}: {file.stat().st_size:,} bytes whose sha256 begins {found[:8]}, not {digest[:8]} as published:"
            f" cut short, or altered; {way_out}"
        )


def _reason(error: Exception, url: str) -> str:
    """What went wrong with a download, without the library's page of nested errors."""
    import requests

    host = urlsplit(url).netloc
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{host} answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"{host} ended the download early"
    if isinstance(error, requests.Timeout):
        return f"{host} does not answer"
    if isinstance(error, requests.ConnectionError):
        return f"no connection to {host}"
    return " ".join(str(error).split())[:160]
