"""Models on the hub, which a small server stands in for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import vqkit
from vqkit.artifact import hub
from vqkit.artifact.store import artifact_folder
from vqkit.errors import VqkitError

from ..hub_server import TOKEN, Hub
from ..processes import run

GOLDEN = Path(__file__).parents[1] / "golden" / "emoji-model"
NAME = "somebody/emoji"
CONTENT_ID = json.loads((GOLDEN / "config.json").read_text(encoding="utf-8"))["content_id"]
TINY_PAIR = (
    "train.steps=2",
    "train.batch_size=4",
    "network.width=16",
    "network.num_heads=2",
    "network.num_blocks=1",
    "network.caption_bytes=12",
)
# Of a file that no loader reads.
OTHERS = {"pytorch_model.bin": b"\x80\x04", "samples/0.png": b"PNG", "sub/config.json": b"{}"}


def golden_files() -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in GOLDEN.glob("*.safetensors")}
    return files | {name: (GOLDEN / name).read_bytes() for name in ("config.json", "metrics.json")}


@pytest.fixture
def server() -> Iterator[Hub]:
    made = Hub()
    made.repositories[NAME] = {"main": golden_files() | OTHERS, "v1": golden_files()}
    yield made
    made.close()


@pytest.fixture
def vqkit_with(server, tmp_path):
    """Runs a command of vqkit with the stand-in for the hub and a cache of its own."""
    variables = {
        "HF_ENDPOINT": server.address,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }

    def command(*words: object, **more: str):
        return run(["-m", "vqkit", *words], {**variables, **more}, folder=tmp_path)

    return command


def said(done) -> str:
    """The one line on the error stream of a command that was refused."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.startswith("vqkit: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_model_is_fetched_once_and_then_used_offline(vqkit_with, server):
    done = vqkit_with("info", f"hf://{NAME}")
    assert done.returncode == 0, done.stderr
    assert CONTENT_ID[:16] in done.stdout
    # Nothing but files of an artifact, each once.
    assert sorted(server.fetched) == sorted(golden_files())
    assert CONTENT_ID[:16] in vqkit_with("info", f"hf://{NAME}").stdout
    assert len(server.fetched) == len(golden_files())
    server.close()
    assert CONTENT_ID[:16] in vqkit_with("info", f"hf://{NAME}").stdout
    offline = vqkit_with("info", f"hf://{NAME}", HF_HUB_OFFLINE="1")
    assert CONTENT_ID[:16] in offline.stdout
    assert "not in the cache" in said(vqkit_with("info", "hf://a/b", HF_HUB_OFFLINE="1"))


def test_verbs_take_a_model_on_the_hub(vqkit_with, server, tmp_path):
    drawn = vqkit_with("generate", f"hf://{NAME}@v1", "--num", "1", "--out", "one.png")
    assert drawn.returncode == 0, drawn.stderr
    packed = vqkit_with("compress", f"hf://{NAME}", "one.png", "--out", "one.vq")
    assert packed.returncode == 0, packed.stderr
    words = ("decompress", "one.vq", "--model", f"hf://{NAME}", "--out-dir", "back")
    back = vqkit_with(*words)
    assert back.returncode == 0, back.stderr
    assert len(list((tmp_path / "back").iterdir())) == 1
    for words in (("train-prior", f"hf://{NAME}", "emoji"), ("train-coder", f"hf://{NAME}", "x")):
        assert "hf download somebody/emoji --local-dir DIR" in said(vqkit_with(*words))
    assert not list(tmp_path.glob("hf*"))


def test_a_pair_is_of_a_model_on_the_hub(vqkit_with, server, tmp_path):
    folder = tmp_path / "captioned"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (32, 32), (12 * number, 40, 90)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"shade {number}", encoding="utf-8")
    made = vqkit_with("pairs", f"hf://{NAME}", "bytes", folder, "--out", "pair", *TINY_PAIR)
    assert made.returncode == 0, made.stderr
    # The model is in the folder of the pair, which needs the hub no more.
    server.close()
    assert f"model {CONTENT_ID[:16]}" in vqkit_with("info", "pair").stdout
    assert "write hf://user/name" in said(
        vqkit_with("pairs", "hf://emoji", "bytes", folder, "--out", "other", *TINY_PAIR)
    )


def test_what_cannot_be_fetched_is_said_in_a_sentence(vqkit_with, server):
    server.repositories["somebody/other"] = {"main": {"pytorch_model.bin": b"\x80\x04"}}
    server.repositories["somebody/secret"] = server.repositories[NAME]
    server.private.add("somebody/secret")
    server.repositories["somebody/gated"] = server.repositories[NAME]
    server.gated.add("somebody/gated")
    for name, words in (
        ("hf://somebody/nothing", "is not on the hub, or is private"),
        ("hf://somebody/secret", "is not on the hub, or is private"),
        ("hf://somebody/gated", "is gated: ask for access"),
        ("hf://somebody/other", "is no model of vqkit: it has no config.json"),
        (f"hf://{NAME}@v2", "has no such revision"),
        ("hf://emoji", "write hf://user/name"),
        ("hf://../x", "write hf://user/name"),
    ):
        assert words in said(vqkit_with("info", name)), name
    assert not server.fetched
    found = vqkit_with("info", "hf://somebody/secret", HF_TOKEN=TOKEN)
    assert CONTENT_ID[:16] in found.stdout, found.stderr


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "prior.safetensors"])
def test_files_that_no_loader_would_read_are_not_fetched(name, vqkit_with, server):
    server.lies[name] = 1 << 40
    assert f"was not fetched: its {name} has 1099511627776 bytes" in said(
        vqkit_with("info", f"hf://{NAME}")
    )
    assert name not in server.fetched


def test_a_pushed_model_comes_back(vqkit_with, server, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(GOLDEN, folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n", encoding="utf-8")
    for name in ("samples/one.png", "checkpoints/state.pt", "files/x.vq", ".vqkit-lock"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert "log in with 'hf auth login'" in said_last(vqkit_with("push", "mine", "user/mine"))
    done = vqkit_with("push", "mine", "user/mine", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert "vqkit.load('hf://user/mine')" in done.stdout
    sent = set(server.repositories["user/mine"]["main"])
    assert sent == {*golden_files(), "README.md", "samples/one.png"}
    assert CONTENT_ID[:16] in vqkit_with("info", "hf://user/mine").stdout
    assert "is on the hub" in said(vqkit_with("push", f"hf://{NAME}", "user/mine"))


def said_last(done) -> str:
    assert done.returncode == 2, (done.stdout, done.stderr)
    return done.stderr.splitlines()[-1]


def test_the_hub_is_asked_for_nothing_that_is_not_named_so(monkeypatch, tmp_path):
    def never(*_):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(hub, "_fetched", never)
    assert vqkit.load(GOLDEN, device="cpu").content_id == CONTENT_ID
    with pytest.raises(VqkitError, match="is not a vqkit artifact"):
        vqkit.load(NAME)
    with pytest.raises(VqkitError, match="the hub was asked"):
        artifact_folder(f"hf://{NAME}")


def test_names_on_the_hub():
    assert hub.parsed("hf://a/b") == ("a/b", None)
    assert hub.parsed("hf://a-1/b_2.c@refs/pr/3") == ("a-1/b_2.c", "refs/pr/3")
    for wrong in ("hf://a", "hf://a/b/c", "hf://a/b@", "hf:///b", "hf://a/b@../x", "hf://a/.."):
        with pytest.raises(VqkitError, match="write hf://user/name"):
            hub.parsed(wrong)


def test_without_the_extra_a_sentence_says_which(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(VqkitError, match=r"pip install 'vqkit\[hub\]'"):
        vqkit.load(f"hf://{NAME}")
