"""A studio as users start it, and a browser that looks at it, both once for these tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vqkit.artifact.build import build_model
from vqkit.artifact.record import Artifact
from vqkit.artifact.store import save_artifact
from vqkit.config import load
from vqkit.settings import Config
from vqkit.signals.registry import signal_of

from ..browser import CHROMIUM
from ..untrained import STAGE, untrained
from .pages import keep_screenshots, opened

GOLDEN = Path(__file__).parents[1] / "golden" / "emoji-model"
# Of a model without a prior, whose codes are so few that one is trained in seconds.
PATCHES = {"kind": "patch", "patch_size": 8, "width": 16}
TOKEN = "0123456789abcdefghij"


class Studio:
    """A process of `vqkit studio`, and what it answers."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "vqkit", "studio", str(self.folder), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *self.options], stdout=subprocess.PIPE, start_new_session=True, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.url = line.split()[1].partition("/?")[0]

    def kill(self) -> None:
        """End it as a crash would."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        self.process.stdout.close()

    def ask(
        self,
        path: str,
        body: dict[str, Any] | bytes | None = None,
        method: str | None = None,
        **headers: str,
    ) -> tuple[int, bytes]:
        """Status and body of an answer. Names of headers have _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body
        if isinstance(body, dict):
            data = json.dumps(body).encode()
            named.setdefault("content-type", "application/json")
        request = urllib.request.Request(self.url + path, data, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def get(self, path: str, body: dict[str, Any] | bytes | None = None) -> Any:
        status, content = self.ask(path, body)
        assert status == 200, content
        return json.loads(content)

    def framed(self, path: str, body: dict[str, Any] | None = None) -> tuple[Any, list[bytes]]:
        """A result and its files."""
        status, content = self.ask(path, body)
        assert status == 200, content
        return unpacked(content)

    def do(self, verb: str, body: dict[str, Any]) -> tuple[Any, list[bytes]]:
        """The result of a job."""
        job = self.get(f"/api/do/{verb}", body)
        while job["state"] in ("waiting", "running"):
            job = self.get(f"/api/jobs/{job['id']}?wait=5")
        assert job["state"] == "done", job
        return self.framed(f"/api/jobs/{job['id']}/result")

    def upload(self, paths: Iterable[Path]) -> str:
        """The id of a new set of these files."""
        name: str = self.get("/api/sets", {})["id"]
        for path in paths:
            called = urllib.parse.quote(path.name)
            self.get(f"/api/sets/{name}/files?name={called}", path.read_bytes())
        return name

    def model(self, name: str) -> str:
        models = self.get("/api/state")["models"]
        return next(model["id"] for model in models if model["name"] == name)


def unpacked(content: bytes) -> tuple[Any, list[bytes]]:
    """A frame, as docs of `vqkit.web.frames` say it, read without them."""
    (length,) = struct.unpack("<I", content[:4])
    message = json.loads(content[4 : 4 + length])
    files = []
    at = 4 + length
    for size in message["blobs"]:
        files.append(content[at : at + size])
        at += size
    assert at == len(content)
    return message["result"], files


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("studio")
    for name in ("tiny", "twin"):
        shutil.copytree(GOLDEN, folder / name)
    save_artifact(untrained(PATCHES, STAGE).artifact, folder / "coarse")
    os.utime(folder / "coarse" / "config.json", (0, 0))
    running = Studio(folder)
    yield running
    running.close()


def begun(folder: Path, source: Path, recipe: str, settings: list[str]) -> None:
    """A model of a recipe as it is before it has learnt anything."""
    torch.manual_seed(0)
    config = load(recipe, settings, Config)
    data = signal_of(config.data).open(source, config.data, config.seed)
    network = build_model(config, data.shape, data.normalisation).eval()
    save_artifact(Artifact(config, network, data.describe()), folder)
    # The page opens the newest model, which shall be one that has learnt something.
    os.utime(folder / "config.json", (0, 0))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """For one module: while Playwright's loop runs, no test of this thread can run another one."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(studio: Studio, chromium: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page on a model, without a word in the console at the end."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    tab = opened(context, studio)
    yield tab
    keep_screenshots(tab, request.node.name)
    assert tab.said == []
    context.close()
