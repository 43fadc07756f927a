"""Pairs through the real entry point: images with text, recordings with text, images with sound."""

import json
import shutil
import signal

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file

import vqkit
from vqkit import cli
from vqkit.apps.evaluate_pair import examples
from vqkit.artifact.pair_store import load_pair
from vqkit.errors import VqkitError
from vqkit.pipelines.pair_data import open_pairs
from vqkit.pipelines.pairs import train_pairs
from vqkit.training.checkpoint import find_checkpoint

from ..processes import run, start
from ..signals.audio.conftest import RATE, RESIDUAL, voice
from ..signals.audio.conftest import TINY as TINY_AUDIO
from ..signals.text.conftest import TINY as TINY_TEXT
from ..training.runs import wait_for

TINY = [
    "network.width=32",
    "network.num_blocks=1",
    "network.num_heads=2",
    "network.caption_bytes=16",
    "train.steps=6",
    "train.batch_size=8",
    "train.checkpoint_every=2",
    "train.precision=float32",
]


@pytest.fixture(scope="module")
def things(emoji, tmp_path_factory):
    """Thirty images with a caption and a sound beside each, and what lacks its other half."""
    folder = tmp_path_factory.mktemp("things")
    for number, index in enumerate(emoji.splits["train"][:30].tolist()):
        pixels = emoji.read(np.array([index])).values[0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
        colour = "Red" if number % 2 else "Green"
        (folder / f"{number:02}.txt").write_text(f"{colour}  {number}\n", encoding="utf-8")
        soundfile.write(folder / f"{number:02}.wav", voice(0.5, number), RATE, "PCM_16")
    (folder / "03.txt").write_text("a caption of more than 16 bytes", encoding="utf-8")
    shutil.copy(folder / "00.png", folder / "silent.png")
    (folder / "unseen.txt").write_text("nothing beside it", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def both(run_folder, things, tmp_path_factory):
    """A pair of images and bytes. Tests must not write there."""
    folder = tmp_path_factory.mktemp("pairs") / "both"
    train_pairs(run_folder, "bytes", things, folder, None, TINY)
    return folder


@pytest.fixture(scope="module")
def pair(both):
    return vqkit.load(both, device="cpu")


@pytest.fixture(scope="module")
def words_folder(things, tmp_path_factory):
    """A model of text, of pieces of 64 bytes."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "notes").mkdir()
    for path in things.glob("*.txt"):
        shutil.copy(path, folder / "notes")
    settings = [*TINY_TEXT, "data.length=64", "train.steps=6", "coder.steps=0"]
    vqkit.train(folder / "notes", folder / "run", "text", settings)
    return folder / "run"


@pytest.fixture(scope="module")
def sounds_folder(things, tmp_path_factory):
    """A model of recordings."""
    folder = tmp_path_factory.mktemp("sounds") / "run"
    vqkit.train(things, folder, "speech", [*TINY_AUDIO, *RESIDUAL])
    return folder


def test_the_folder_is_whole_by_itself(both, tmp_path, capsys):
    moved = tmp_path / "elsewhere"
    shutil.copytree(both, moved)
    for name in ("report.html", "recipe.yaml", "metrics.jsonl", "metrics.json", "config.json"):
        assert (moved / name).stat().st_size > 0, name
    assert not (moved / "checkpoint").exists()
    found = load_pair(moved, "cpu")
    text = found.generate("red 5", 3, seed=1)
    assert text.shape == (3, 32, 32, 3) and text.dtype == np.uint8
    assert cli.main(["info", str(moved)]) == 0
    said = capsys.readouterr().out
    assert "a pair, one prior" in said and "64 codes" in said and "bytes, at most 16" in said


def test_what_is_missing_and_cut_is_counted_and_named(pair, things):
    notes = open_pairs(pair.halves, things).notes
    assert any("1 image without a text is left out: silent.png" in note for note in notes)
    assert any("1 text without an image is left out: unseen.txt" in note for note in notes)
    assert any("1 text is longer than the pair takes, and cut" in note for note in notes)


def test_examples_of_pairs_with_many_codes_are_few(pair, things, monkeypatch):
    pairs = open_pairs(pair.halves, things).pairs
    for codes, expected in ((1 << 16, 8), (4 * 4 * 80, 4), (1, 2)):
        monkeypatch.setattr("vqkit.apps.evaluate_pair.CODES_DRAWN", codes)
        shown = examples(pair, pairs, "train")
        assert [len(rows) for rows in shown] == [expected, expected]
        assert all(len(row.made) == 4 for rows in shown for row in rows)


def test_texts_go_to_images_and_images_to_texts(both, things, tmp_path, capsys):
    sheet = tmp_path / "grid.png"
    asked = ["generate", str(both), "--from", "red 7", "--num", "4", "--out", str(sheet)]
    assert cli.main([*asked, "--cfg", "2", "--each", str(tmp_path / "each")]) == 0
    with Image.open(sheet) as image:
        assert image.size[0] > 64
    assert len(list((tmp_path / "each").glob("*.png"))) == 4
    capsys.readouterr()
    asked = ["generate", str(both), "--from", str(things / "04.png"), "--num", "3"]
    assert cli.main(asked) == 0
    assert len(capsys.readouterr().out.split("\n")) == 4
    assert cli.main([*asked, "--out", str(tmp_path / "told.txt")]) == 0
    assert (tmp_path / "told.txt").read_bytes().count(b"\n") == 3


def test_a_seed_and_a_number_name_an_item(pair, things):
    few = pair.generate("green 2", 2, seed=4)
    assert np.array_equal(few, pair.generate("green 2", 5, seed=4)[:2])
    assert not np.array_equal(few, pair.generate("green 2", 2, seed=5))
    image = things / "04.png"
    with Image.open(image) as opened:
        told = pair.generate(opened, 2, seed=4)
    assert told == pair.generate(image, 2, seed=4) and len(told) == 2


def test_scores_are_bits_of_both_orders(pair, things, capsys, both):
    image = things / "01.png"
    found = pair.score(image, "red 1")
    # By the network itself: first the image and then the text, and the other way round.
    codes = torch.cat(
        [half.encode(one).codes for half, one in zip(pair.halves, (image, "red 1"), strict=True)], 1
    )
    first, second = (pair.prior.bits(codes, order)[0].tolist() for order in (0, 1))
    assert found[:4] == pytest.approx((first[0], second[1], second[0], first[1]))
    assert found.fit == pytest.approx(
        (found.first + found.second - found.first_given_second - found.second_given_first) / 2
    )
    assert cli.main(["score", str(both), str(image), "red 1", "green 1", "blue"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]
    fits = [float(row[1]) for row in rows]
    assert fits == sorted(fits, reverse=True)
    by_text = {" ".join(row[4:]): float(row[1]) for row in rows}
    assert by_text["red 1"] == pytest.approx(found.fit, abs=0.06)
    images = [str(things / f"0{number}.png") for number in range(3)]
    assert cli.main(["score", str(both), *images, "red 1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_other_verbs_say_what_to_use(both, things, tmp_path, capsys):
    image = str(things / "01.png")
    for words in (
        ["reconstruct", str(both), image, "--out", str(tmp_path)],
        ["compress", str(both), image, "--out", str(tmp_path / "a.vq")],
        ["train-prior", str(both), str(things)],
        ["inpaint", str(both), image, "--mask", image, "--out", str(tmp_path / "a.png")],
    ):
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert "is a pair, which vqkit generate --from, score and info take" in said
        assert str(both / "first") in said
    assert cli.main(["reconstruct", str(both / "first"), image, "--out", str(tmp_path)]) == 0


def test_mistakes_are_told_in_a_sentence(both, run_folder, things, tmp_path, capsys):
    image, sheet = str(things / "01.png"), str(tmp_path / "a.png")
    for words, told in (
        (["generate", str(both), "--out", sheet], "with --from: an image or a text"),
        (["generate", str(both), "--from", "red"], "an image is made of that"),
        (["generate", str(both), "--from", "red", "--out", sheet, "--steps", "3"], "not for pairs"),
        (["generate", str(run_folder), "--from", "red", "--out", sheet], "--from is of pairs"),
        (["generate", str(run_folder)], "with --out"),
        (["score", str(both), image], "give one item of either"),
        (["score", str(both), image, image, "red", "green"], "these are 2 and 2"),
        (
            ["pairs", str(run_folder), str(run_folder), str(things), "--out", sheet],
            "both are image",
        ),
        (["pairs", "bytes", "bytes", str(things), "--out", sheet], "both are text"),
        (["pairs", str(both), "bytes", str(things), "--out", sheet], "is a pair, which"),
    ):
        assert cli.main(words) == 2, words
        assert told in capsys.readouterr().err, words


def test_a_folder_without_pairs_says_what_it_needs(run_folder, things, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    for number in range(4):
        shutil.copy(things / f"0{number}.png", alone)
    with pytest.raises(
        VqkitError, match=r"no pairs: 0 of its 4 images have a text; pairs are .*\.txt"
    ):
        train_pairs(run_folder, "bytes", alone, tmp_path / "out", None, TINY)
    assert not list((tmp_path / "out").glob("*"))


def test_captions_in_a_table(run_folder, pair, things, tmp_path):
    images = [(things / f"{number:02}.png").read_bytes() for number in range(20)]
    texts = [None if number == 4 else f"number {number}" for number in range(20)]
    table = {"image": images, "caption": texts, "licence": ["cc0"] * 20}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "table.parquet")
    opened = open_pairs(pair.halves, tmp_path / "table.parquet")
    assert any("1 image without a text is left out: table.parquet:4" in n for n in opened.notes)
    codes = pair.halves[1].encode([f"number {number}" for number in range(20)]).codes
    for row, name in enumerate(opened.pairs.data.names):
        number = int(str(name).rpartition(":")[2])
        wanted = codes[number] if number != 4 else torch.full_like(codes[0], -1)
        assert torch.equal(opened.pairs.partners[row].long(), wanted)
    del table["caption"]
    table["other"] = texts
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "table.parquet")
    with pytest.raises(VqkitError, match="2 columns of text: call the one that is meant caption"):
        open_pairs(pair.halves, tmp_path / "table.parquet")


def test_a_model_of_text_in_the_place_of_bytes(run_folder, words_folder, things, tmp_path):
    pair = train_pairs(words_folder, run_folder, things, tmp_path / "both", None, TINY)
    assert pair.generate("Red 5", 2).shape == (2, 32, 32, 3)
    texts = pair.generate(things / "02.png", 2)
    assert len(texts) == 2 and all(isinstance(text, str) for text in texts)
    again = load_pair(tmp_path / "both", "cpu")
    assert again.generate(things / "02.png", 2) == texts
    assert pair.score("Red 5", things / "05.png").fit == again.score("Red 5", things / "05.png").fit


def test_recordings_with_transcripts(sounds_folder, things, tmp_path, capsys):
    out = tmp_path / "spoken"
    words = ["pairs", str(sounds_folder), "bytes", str(things), "--out", str(out), *TINY]
    assert cli.main(words) == 0
    assert "<audio" in (out / "report.html").read_text()
    capsys.readouterr()
    assert cli.main(["generate", str(out), "--from", str(things / "02.wav"), "--num", "2"]) == 0
    assert len(capsys.readouterr().out.split("\n")) == 3
    asked = ["generate", str(out), "--from", "red", "--num", "1", "--out", str(tmp_path / "a.wav")]
    assert cli.main(asked) == 0
    samples, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == RATE and len(samples) == vqkit.load(out).halves[0].model.shape.extent[0]


def test_images_with_recordings(run_folder, sounds_folder, things, tmp_path):
    pair = train_pairs(run_folder, sounds_folder, things, tmp_path / "both", None, TINY)
    samples = pair.generate(things / "04.png", 2)
    assert samples.shape[0] == 2 and samples.dtype == np.int16
    assert pair.generate(things / "04.wav", 1).shape == (1, 32, 32, 3)
    with pytest.raises(VqkitError, match="no file 'red', and this pair has no text"):
        pair.generate("red")


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(both, run_folder, things, tmp_path):
    out = tmp_path / "both"
    command = ["-m", "vqkit", "pairs", run_folder, "bytes", things, "--out", out]
    process = start([*command, *TINY, "train.steps=16"])
    wait_for(lambda: find_checkpoint(out) is not None, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = run([*command, "--resume"])
    assert done.returncode == 0, done.stderr
    whole = tmp_path / "whole"
    train_pairs(run_folder, "bytes", things, whole, None, [*TINY, "train.steps=16"])
    tensors = [load_file(folder / "pair.safetensors") for folder in (whole, out)]
    assert all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())


@pytest.mark.parametrize("damage", ["bits", "config", "half", "bytes", "version"])
def test_damage_is_found(both, run_folder, tmp_path, damage):
    folder = tmp_path / "both"
    shutil.copytree(both, folder)
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    if damage == "bits":
        content = bytearray((folder / "pair.safetensors").read_bytes())
        content[-100] ^= 1
        (folder / "pair.safetensors").write_bytes(content)
    elif damage == "config":
        tree["config"]["network"]["width"] = 1 << 20
    elif damage == "half":
        tree["halves"][0]["artifact"] = "0" * 64
    elif damage == "bytes":
        tree["halves"][1]["length"] = 1 << 40
    else:
        tree["format_version"] = 99
    path.write_text(json.dumps(tree, indent=2))
    with pytest.raises(VqkitError):
        load_pair(folder, "cpu")
