"""Weights by name, from a server on this machine: whole and as published, or not at all."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from fasthg import create_model
from fasthg.cli.app import main
from fasthg.errors import FasthgError
from fasthg.network import load, published
from fasthg.network.checkpoint import read_metadata
from fasthg.network.load import WEIGHTS_DIR, find_weights, load_network
from fasthg.network.model import HourglassNet
from fasthg.network.variants import HourglassConfig

CONFIG = HourglassConfig(num_stacks=1, num_feats=8, depths=1)
NAME = "bearpaw-hg2"


@dataclass
class Server:
    """What it answers with, and what it was asked."""

    url: str = ""
    content: bytes = b""
    status: int = 200
    announced: int | None = None  # Content-Length where it is not the content's
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(state.content) if state.announced is None else state.announced))
            self.end_headers()
            self.wfile.write(state.content)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}/hg2-v0.pth"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield state
        http.shutdown()


@pytest.fixture
def net(randomised: Any) -> HourglassNet:
    return randomised(CONFIG)


@pytest.fixture
def release(
    net: HourglassNet, server: Server, pytorch_pose_names: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> bytes:
    """A checkpoint as anibali's releases are, on the server, in place of the one that has its name in the table."""
    torch.save(pytorch_pose_names(net), tmp_path / "release.pth")
    server.content = (tmp_path / "release.pth").read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()[:8]
    entry = replace(published.PUBLISHED[NAME], config=CONFIG, url=server.url, digest=digest)
    monkeypatch.setitem(published.PUBLISHED, NAME, entry)
    monkeypatch.setenv("FASTHG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return server.content


def kept(tmp_path: Path) -> list[str]:
    """Files in the cache, locks aside."""
    return sorted(file.name for file in (tmp_path / "cache" / "weights").rglob("*") if file.suffix != ".lock")


def test_a_name_is_fetched_once_converted_and_answers_as_its_authors_network(
    release: bytes, net: HourglassNet, server: Server, tmp_path: Path
) -> None:
    crop = torch.rand(1, 3, 64, 64)
    for _ in range(2):
        assert torch.equal(load_network(NAME)(crop), net(crop))
    assert torch.equal(create_model(CONFIG, weights=NAME)(crop), net(crop))
    assert server.asked == ["/hg2-v0.pth"]
    assert kept(tmp_path) == [f"{NAME}.safetensors"]
    metadata = read_metadata(find_weights(NAME))
    assert metadata["source_sha256"] == hashlib.sha256(release).hexdigest()
    assert metadata["source_url"] == server.url
    assert "GPL-3.0" in metadata["licence"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("altered", r"bytes whose sha256 begins [0-9a-f]{8}, not [0-9a-f]{8} as published: cut short, or altered"),
        ("cut short and said to be whole", "as published: cut short, or altered"),
        ("cut short on the way", r"cannot be fetched \(127\.0\.0\.1:\d+ ended the download early\)"),
        ("resumed in the middle", "as published: cut short, or altered"),
        ("not found", r"cannot be fetched \(127\.0\.0\.1:\d+ answers 404 Not Found\)"),
        ("a page instead", "as published: cut short, or altered"),
    ],
)
def test_what_is_not_as_published_is_refused_and_leaves_nothing(
    release: bytes, server: Server, tmp_path: Path, fault: str, message: str
) -> None:
    if fault == "altered":
        server.content = release[:-2000] + bytes([release[-2000] ^ 1]) + release[-1999:]
    elif fault == "cut short and said to be whole":
        server.content = release[:-1000]
    elif fault == "cut short on the way":
        server.content, server.announced = release[:-1000], len(release)
    elif fault == "resumed in the middle":
        server.content, server.status = release[5000:], 206
    elif fault == "not found":
        server.status = 404
    else:
        server.content = b"<html>log in first</html>"
    with pytest.raises(FasthgError, match=message) as error:
        load_network(NAME)
    line = str(error.value)
    assert "\n" not in line
    assert f"fetch {server.url} by hand and put it at {tmp_path / 'cache' / 'weights' / NAME}.pth" in line
    assert kept(tmp_path) == []
    server.content, server.status, server.announced = release, 200, None
    assert load_network(NAME).config == CONFIG, "the next try is a fresh one"


def test_without_a_network_the_line_says_what_to_fetch_and_where_to_put_it(
    release: bytes, net: HourglassNet, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(published.PUBLISHED[NAME], url="http://127.0.0.1:9/hg2-v0.pth")  # nobody listens
    monkeypatch.setitem(published.PUBLISHED, NAME, entry)
    with pytest.raises(
        FasthgError,
        match=r"cannot be fetched \(no connection to 127\.0\.0\.1:9\); fetch http://127\.0\.0\.1:9/hg2-v0\.pth by hand",
    ):
        load_network(NAME)
    place = published.by_hand_at(NAME)
    place.write_bytes(release[:-1])
    with pytest.raises(FasthgError, match=r"cut short, or altered; remove .*bearpaw-hg2\.pth, or fetch it again"):
        load_network(NAME)
    place.write_bytes(release)
    crop = torch.rand(1, 3, 64, 64)
    assert torch.equal(load_network(NAME)(crop), net(crop))
    assert server.asked == []


def test_two_processes_at_once_fetch_once(release: bytes, server: Server, tmp_path: Path) -> None:
    entry = published.PUBLISHED[NAME]
    program = (
        "from dataclasses import replace; from fasthg.network import published; from fasthg.network.variants import *;"
        f"entry = replace(published.PUBLISHED[{NAME!r}], url={entry.url!r}, digest={entry.digest!r},"
        " config=HourglassConfig(num_stacks=1, num_feats=8, depths=1));"
        f"published.PUBLISHED[{NAME!r}] = entry; print(published.fetch({NAME!r}))"
    )
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate(timeout=120)[0].strip() for process in running}
    assert answers == {str(published.kept_at(NAME))}
    assert [process.returncode for process in running] == [0, 0]
    assert len(server.asked) == 1
    assert kept(tmp_path) == [f"{NAME}.safetensors"]


def test_another_network_under_the_name_is_refused(
    release: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(published.PUBLISHED[NAME], config=replace(CONFIG, num_stacks=2, depths=1))
    monkeypatch.setitem(published.PUBLISHED, NAME, entry)
    with pytest.raises(FasthgError, match=r"weights bearpaw-hg2 holds .*num_stacks 1 against 2"):
        load_network(NAME)
    assert kept(tmp_path) == []


def test_what_nobody_published_a_digest_of_is_taken_by_hand_alone(
    release: bytes, net: HourglassNet, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(published.PUBLISHED, NAME, replace(published.PUBLISHED[NAME], digest=None))
    with pytest.raises(FasthgError, match="nobody publishes a digest, so they are not fetched unseen; fetch http"):
        load_network(NAME)
    assert server.asked == []
    published.by_hand_at(NAME).write_bytes(release)
    assert load_network(NAME).config == CONFIG


def test_names_that_nobody_has_are_answered_with_those_that_there_are() -> None:
    with pytest.raises(FasthgError, match=r"bearpaw-hg9 does not exist; .* or one of default, rendered, bearpaw-hg1,"):
        load_network("bearpaw-hg9")


def test_weights_that_ship_say_once_which_they_are(caplog: pytest.LogCaptureFixture) -> None:
    load.say_once.cache_clear()
    with caplog.at_level("INFO", logger="fasthg"):
        rendered = create_model("small", weights="rendered")
        create_model("small", weights="rendered")
        create_model("small", weights="default")
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert said[0] == "weights: the small-rendered network that ships with fasthg, learnt from rendered people alone"
    assert said[1].startswith("weights: the small network that ships with fasthg")
    assert rendered.config == load_network(WEIGHTS_DIR / "small-rendered.safetensors").config


def test_the_list_needs_no_cache(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FASTHG_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["list", "--weights", "--json"]) == 0
    where = {name: row["where"] for name, row in json.loads(capsys.readouterr().out).items()}
    assert (where["default"], where[NAME]) == ("ships", "needs a cache: name a folder by FASTHG_CACHE=DIR")


def test_the_list_shows_sizes_scores_and_licences(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTHG_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list", "--weights"]) == 0
    printed = capsys.readouterr().out
    sizes = ("bearpaw-hg8", "102.4", "88.78", "90e5d470.pth")
    for text in (*sizes, "GPL-3.0", "not stated", "by hand, at", "BSD-3-Clause"):
        assert text in printed.replace("\n", "") or text in printed, text
