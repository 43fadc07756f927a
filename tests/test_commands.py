"""The commands of README and of the site's pages, as written, on crops of a photograph, short."""

import argparse
import glob
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from vqkit import cli
from vqkit.config import load
from vqkit.settings import Config

from . import processes
from .conftest import TINY
from .hub_server import TOKEN, Hub
from .signals.audio.conftest import RATE, RESIDUAL, voice
from .signals.audio.conftest import TINY as SPEECH
from .signals.text.conftest import TINY as TEXT
from .signals.text.conftest import note

ROOT = Path(__file__).parents[1]
# Pages for users, each of which is run in a folder of its own. Those of benchmarks are not among
# them: their commands take minutes to hours.
PAGES = [
    str(path.relative_to(ROOT))
    for pattern in ("README.md", "docs/*.md", "docs/how-to/*.md")
    for path in sorted(ROOT.glob(pattern))
]
# Run one after another: the first trains what the others use. All others, in a test of its own, use
# what that one trains.
FIRST = [
    "README.md",
    "docs/start.md",
    *(f"docs/how-to/{name}.md" for name in ("train", "compress", "generate", "explain")),
    *(f"docs/how-to/{name}.md" for name in ("recordings", "text")),
]
# What is not run, by its first word.
NOT_RUN = {
    "pip": "installs from the network",
    "apt-get": "fetches a package of Debian",
    "npm": "fetches a package of npm",
    "hf": "asks for a token, which the environment of these commands has",
    "docker": "needs its daemon",
    "torchrun": "eight processes; test_training starts two",
}
SHORT = [
    *(setting for setting in TINY if "codebook" not in setting),
    "train.steps=10",
    "coder.steps=2",
    "data.image_size=[32,32]",
]
# What takes long is to measure rates.
SHORTER = [
    *(setting for setting in TINY if "codebook" not in setting),
    "train.steps=2",
    "data.image_size=[8,8]",
    "coder.steps=0",
]
SHORT_PRIOR = [
    "network.width=32",
    "network.num_blocks=1",
    "network.num_heads=2",
    "train.steps=4",
    "train.max_minutes=null",
]

# Of trainings that have settings of their own, by how their commands begin.
ARRAYS = ["train.steps=2", "model.network.width=16", "coder.steps=2", "train.precision=float32"]
SHORT_BY_COMMAND = {
    "train recordings": [*SPEECH, *RESIDUAL],
    "train notes": TEXT,
    "train emoji": [*SHORTER, "data.validation=0.01", "data.test=0.01"],
    "train talks": [*SPEECH, "model.network.filter_blocks=1"],
    "train ecg/": [*ARRAYS, "data.length=64"],
    "train scans/": [*ARRAYS, "data.size=[8,8,8]"],
    "train photos --out runs/photos": SHORT,
    "train": SHORTER,
    "train-prior": SHORT_PRIOR,
    "pairs": SHORT_PRIOR,
    "sharpen": [
        "train.steps=2",
        "adversary.width=4",
        "adversary.num_layers=1",
        "losses.perceptual_distance=bands",
    ],
}


# Folders that several pages make, and what is in them when they are made.
MADE_ONCE = {
    "train": ("runs/photos", "report.html"),
    "train-prior": ("runs/photos", "prior"),
    "pairs": ("runs/both", "report.html"),
}


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The words of each command. Those in quotes keep them."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    words = (shlex.split(line, comments=True, posix=False) for line in lines)
    return [one for one in words if one and one[0] not in NOT_RUN]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo) -> Path:
    """A folder with `photos`, `recordings`, a talk, a mask, `notes` and `records` in it, as the
    pages assume.
    """
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    with Image.open(photo) as image:
        for index in range(39):
            left, top = 7 * index % (image.width - 80), 5 * index % (image.height - 80)
            image.crop((left, top, left + 80, top + 72)).save(folder / "photos" / f"{index}.png")
            (folder / "photos" / f"{index}.txt").write_text(f"from {left} to {left + 80}")
        image.crop((50, 50, 150, 130)).save(folder / "photos" / "cat.png")
    (folder / "photos" / "cat.txt").write_text("a cat")
    mask = np.zeros((80, 100), np.uint8)
    mask[20:50, 30:60] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    (folder / "runs").mkdir()
    (folder / "recordings").mkdir()
    for number in range(8):
        soundfile.write(folder / "recordings" / f"{number}.wav", voice(2.0, number), RATE)
    soundfile.write(folder / "talk.wav", voice(2.0, 9), RATE)
    for name, suffix, length in (("notes", "md", 300), ("records", "json", 100)):
        (folder / name).mkdir()
        for number in range(24):
            path = folder / name / f"{number}.{suffix}"
            path.write_text(note(number, length), encoding="utf-8")
    (folder / "notes" / "a.md").write_text(note(24), encoding="utf-8")
    return folder


@pytest.fixture
def others(folder, photo) -> Path:
    """`folder` with what the other pages speak of in it as well."""
    for name in ("drawings-of-a", "drawings-of-b", "noisy", "talks", "noises", "ecg", "scans"):
        (folder / name).mkdir()
    with Image.open(photo) as image:
        for number in range(3):
            for left, name in enumerate(("drawings-of-a", "drawings-of-b", "noisy")):
                box = (40 * left, 40 * number, 40 * left + 32, 40 * number + 32)
                image.crop(box).save(folder / name / f"{number}.png")
        image.crop((60, 60, 92, 92)).save(folder / "new.png")
    rng = np.random.default_rng(0)
    for number in range(6):
        soundfile.write(folder / "talks" / f"{number}.wav", voice(1.5, number), RATE)
        np.save(folder / "ecg" / f"{number}.npy", rng.normal(size=(192, 2)).cumsum(0))
        np.save(folder / "scans" / f"{number}.npy", rng.normal(size=(8, 16, 8)))
    soundfile.write(folder / "noisy" / "a.wav", voice(0.5, 7), RATE)
    soundfile.write(folder / "noises" / "street.wav", rng.normal(0, 0.1, 2 * RATE), RATE)
    np.savetxt(
        folder / "walk.csv", rng.normal(size=(90, 2)), delimiter=",", header="x,y", comments=""
    )
    write_shards(folder)
    return folder


def write_shards(folder: Path) -> None:
    """The photographs and their captions four times: as archives, and as a table."""
    paths = [path for path in sorted((folder / "photos").glob("*.png")) if path.stem != "cat"]
    (folder / "archives").mkdir()
    for shard in range(4):
        with tarfile.open(folder / "archives" / f"{shard}.tar", "w") as archive:
            for path in paths:
                for each in (path, path.with_suffix(".txt")):
                    archive.add(each, each.name)
    (folder / "tables").mkdir()
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    captions = [path.with_suffix(".txt").read_text() for path in paths]
    table = pa.table({"image": images * 4, "caption": captions * 4})
    pq.write_table(table, folder / "tables" / "0.parquet", row_group_size=len(paths))


class Server:
    """A server that a page starts, at a port that is free."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", "0"], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        (self.port,) = re.findall(r"http://[^/]+:(\d+)", self.process.stdout.readline())

    def ask(self, *words: str) -> bytes:
        """What it answers to the command `curl`."""
        parser = argparse.ArgumentParser()
        parser.add_argument("url", type=urlsplit)
        parser.add_argument("--data-binary", type=lambda name: Path(name[1:]).read_bytes())
        parser.add_argument("-H", action="append", default=[])
        parser.add_argument("-o")
        given = parser.parse_args(words)
        # As curl does.
        headers = {"content-type": "application/x-www-form-urlencoded"}
        headers |= dict(header.split(": ") for header in given.H)
        headers["host"] = given.url.netloc.replace(":8000", f":{self.port}")
        target = given.url._replace(scheme="", netloc="").geturl()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{target}", given.data_binary, headers
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            content: bytes = answer.read()
        if given.o is not None:
            Path(given.o).write_bytes(content)
        return content

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)


class Shell:
    """Does what a page says in a folder of its own. server: that it started last; answers: of
    servers, one after another.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.server: Server | None = None
        self.answers: list[bytes] = []

    def run(self, page: str, folder: Path, work: Path) -> Path:
        """Run the commands of a page, with what is in `folder` in its own."""
        own = work / Path(page).stem
        own.mkdir()
        for each in folder.iterdir():
            (own / each.name).symlink_to(each)
        self.monkeypatch.chdir(own)
        with self.monkeypatch.context() as variables:
            for command in commands(page):
                self.do(command, variables)
        self.close()
        return own

    def do(self, command: list[str], variables: pytest.MonkeyPatch) -> None:
        words = [word for found in command for word in expanded(found)]
        if words[0] == "export":
            variables.setenv(words[1].split("=")[0], "0123456789abcdef")
        elif words[:2] in (["vqkit", "serve"], ["vqkit", "studio"]):
            self.close()
            self.server = Server(words)
            if words[1] == "studio":
                self.answers.append(self.server.ask("http://127.0.0.1:8000/api/state"))
        elif words[0] == "curl":
            assert self.server is not None
            self.answers.append(self.server.ask(*words[1:]))
        else:
            run(words)

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
        self.server = None


def expanded(word: str) -> list[str]:
    """The words that a shell makes of one."""
    if word[0] in "'\"":
        return [os.path.expandvars(word[1:-1])]
    return sorted(glob.glob(word)) or [word]


def run(words: list[str]) -> None:
    """One command, made short where it trains."""
    assert words[0] == "vqkit"
    model, made = MADE_ONCE.get(words[1], ("", ""))
    if model in words and Path(model, made).exists():
        return
    if words[1] == "push" or any("hf://" in word for word in words):
        # The address of the hub is read once, when its library is imported.
        done = processes.run(["-m", *words])
        assert done.returncode == 0, (words, done.stderr)
        return
    begins = (" ".join(words[1 : 1 + length]) for length in (4, 2, 1))
    extra = next((SHORT_BY_COMMAND[one] for one in begins if one in SHORT_BY_COMMAND), [])
    assert cli.main([*words[1:], *extra]) == 0, words


@pytest.fixture
def shell(monkeypatch) -> Iterator[Shell]:
    shell = Shell(monkeypatch)
    yield shell
    shell.close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.close()


@pytest.mark.long
def test_the_commands_of_pages_work_one_after_another_and_then_the_python(folder, tmp_path, shell):
    for page in FIRST:
        assert commands(page)
        shell.run(page, folder, tmp_path)
        if python := blocks(page, "python"):
            with Image.open("photos/cat.png") as image:
                names = {"images": np.asarray(image.convert("RGB"))[None]}
            exec(python[0], names)
            assert names["pixels"].shape == names["images"].shape
    runs = folder / "runs"
    assert (runs / "photos" / "report.html").exists()
    assert (tmp_path / "README" / "out" / "cat.png").exists()
    for record in (folder / "records").iterdir():
        back = tmp_path / "text" / "records-back" / record.name
        assert back.read_bytes() == record.read_bytes()


@pytest.mark.long
def test_the_commands_of_all_other_pages_work(others, tmp_path, hub, shell, monkeypatch):
    away = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "cache"),
        # What `hf auth login` asks for.
        "HF_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in away.items():
        monkeypatch.setenv(name, value)
    # Other instructions of the processor need processes of their own; test_check has them.
    monkeypatch.setattr("vqkit.pipelines.check.flips_elsewhere", lambda *_: {})
    monkeypatch.chdir(others)
    run(["vqkit", "train", "photos", "--out", "runs/photos"])
    pages = [page for page in PAGES if page not in FIRST and commands(page)]
    ran = {Path(page).stem: shell.run(page, others, tmp_path) for page in pages}
    assert "model.safetensors" in hub.repositories["user/photos"]["main"]
    assert (ran["hub"] / "out" / "cat.png").exists()
    assert {path.name for path in (ran["denoise"] / "out").iterdir()} >= {"0.png", "a.wav"}
    assert np.load(ran["arrays"] / "back" / "walk.npy").shape == (90, 2)
    assert (ran["export"] / "onnx" / "decoder.onnx").exists()
    with Image.open(ran["serve"] / "back.png") as image:
        assert image.size == (100, 80)
    *codes, state = [json.loads(answer) for answer in shell.answers if answer[:1] == b"{"]
    assert [one["extent"] for one in codes] == [[80, 100]] * 2
    assert "photos" in [model["name"] for model in state["models"]]


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "quantizers").glob("[a-z]*.md")))
def test_the_settings_of_quantizer_pages_are_such_that_train_takes(path):
    """Each is trained by test_training."""
    for command in commands(str(path.relative_to(ROOT))):
        verb = [*command[:5], "--recipe"]
        assert verb == ["vqkit", "train", "photos", "--out", f"runs/{path.stem}", "--recipe"]
        config = load(command[6], command[7:], Config)
        assert config.model.quantizer.kind.replace("_", "-") == path.stem


def test_commands_are_nowhere_but_where_they_are_run():
    """In blocks of other languages, or of none."""
    begin = tuple(f"{word} " for word in ("vqkit", "curl", "python", *NOT_RUN))
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        outside = re.sub(r"```sh\n.*?```", "", text, flags=re.DOTALL)
        blocks = re.findall(r"```\w*\n(.*?)```|((?:^    .*\n)+)", outside, re.DOTALL | re.MULTILINE)
        lines = "".join(fenced + indented for fenced, indented in blocks).splitlines()
        assert [line for line in lines if line.strip().startswith(begin)] == [], page
