"""Text through every verb: what is read, what comes back, and what is refused."""

from __future__ import annotations

import json
import signal
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vqkit
from vqkit import cli
from vqkit.apps.denoise import denoise
from vqkit.apps.explain import explain, open_data
from vqkit.apps.explain.sample import gather
from vqkit.artifact import long_items
from vqkit.coding import BYTES, VALUES, FileHeader, FormatError, Stage, write_file
from vqkit.errors import VqkitError
from vqkit.model.likelihood import SURE
from vqkit.pipelines.autoencoder import train
from vqkit.signals.registry import recognised
from vqkit.signals.text import display, measures, show
from vqkit.signals.text.config import DataConfig
from vqkit.signals.text.signal import TEXT
from vqkit.signals.text.source import open_text, with_typos
from vqkit.training.checkpoint import find_checkpoint

from ...processes import start
from ...training.runs import assert_same_weights, wait_for
from ..checked import assert_invariant
from .conftest import TINY, note


def values(text: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(text, np.uint8).copy())[None, None]


# --------------------------------------------------------------------------------------------- sets


def test_files_are_cut_into_pieces_that_hold_every_byte_once(notes):
    data = open_text(notes, DataConfig(length=64), seed=0)
    found = b"".join(b"".join(sorted(data.texts(split))) for split in data.splits)
    wanted = [path.read_bytes() for path in notes.rglob("*.*") if path.is_file()]
    assert sorted(found) == sorted(b"".join(wanted))
    assert data.num_files == 24 and [bad.name for bad in data.bad] == ["empty.txt"]
    for split in data.splits:
        joined = []
        for batch in data.split(split, 5):
            rows = measures.real_bytes(batch.values, batch.mask)
            joined += rows
        assert b"".join(joined) == b"".join(data.texts(split))
    # Training sees patches of four bytes from each of them on.
    places = data.places[data.splits["train"]]
    assert set(places % 4) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        ("line", [b"one\n", b"two\n", b"last"]),
        ("bytes:5", [b"one\nt", b"wo\n\n ", b"\nlast"]),
        ("file", [b"one\ntwo\n\n \nlast"]),
    ],
)
def test_items_are_lines_files_or_parts(tmp_path, item, wanted):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n\n \nlast")
    settings = DataConfig(item=item, validation=0, test=0, length=16)
    data = open_text(tmp_path, settings, seed=0)
    assert sorted(data.texts("train")) == sorted(wanted)


def test_equal_lines_lie_in_one_split(tmp_path):
    lines = [f"line {number % 20}\n" for number in range(200)]
    (tmp_path / "a.log").write_text("".join(lines))
    settings = DataConfig(item="line", validation=0.2, test=0.2, length=16)
    data = open_text(tmp_path, settings, seed=0)
    texts = [set(data.texts(split)) for split in ("train", "validation", "test")]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 20


def test_few_items_say_how_to_have_more(tmp_path):
    (tmp_path / "a.txt").write_text("alone")
    with pytest.raises(VqkitError, match="data.item=bytes"):
        open_text(tmp_path, DataConfig(), seed=0)


def test_typos_are_as_many_as_was_said_and_length_stays():
    text = values((b"a quick brown fox " * 40)[:512]).repeat(50, 1, 1)
    noisy = with_typos(text, 0.2, range(50))
    shares = 100 - measures.byte_accuracy(noisy, text)
    assert noisy.shape == text.shape and float(shares.max()) <= 20
    # Shares are uniform up to 20 %, and a few replacements change nothing.
    assert 6 < float(shares.mean()) < 11
    assert torch.equal(noisy, with_typos(text, 0.2, range(50)))


def test_folders_of_text_are_recognised_and_mixed_ones_ask(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.json").write_text('{"a": 1}')
    assert recognised(tmp_path) == "text"
    for number in range(4):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"i{number}.png")
    with pytest.raises(VqkitError, match=r"4 texts, 4 images.*data.signal=text or data.signal=im"):
        recognised(tmp_path)
    # Captions are a part of the images that they lie beside.
    for number in range(4):
        (tmp_path / f"{number}.json").rename(tmp_path / f"i{number}.txt")
    assert recognised(tmp_path) == "image"


def test_a_note_beside_a_table_is_not_what_is_meant(tmp_path):
    (tmp_path / "README.md").write_text("Images of cats.")
    (tmp_path / "LICENSE").write_text("Free.")
    (tmp_path / "cats.parquet").write_bytes(bytes(100))
    assert recognised(tmp_path) == "image"
    (tmp_path / "README.md").write_text("Images of cats." * 10)
    assert recognised(tmp_path) == "text"


def test_text_without_a_suffix_is_known_by_its_bytes(tmp_path):
    (tmp_path / "fortunes").write_text("A penny saved\n%\n")
    (tmp_path / "program").write_bytes(b"\x7fELF\0\0")
    (tmp_path / ".hidden").write_text("x")
    assert [path.name for path in TEXT.find([tmp_path])] == ["fortunes"]


# ----------------------------------------------------------------------------------------- measures


def test_measures_are_those_of_a_count_by_hand():
    original = values(b"x" * 63 + b"yz" + b"w" * 30)
    changed = original.clone()
    changed[0, 0, 64] = ord("!")
    assert float(measures.byte_accuracy(changed, original)) == pytest.approx(100 * 94 / 95)
    # The second run, of 31 bytes, has the error.
    assert float(measures.exact_runs(changed, original)) == 50
    mask = torch.arange(95)[None] < 64
    assert float(measures.exact_runs(changed, original, mask)) == 100
    assert float(measures.byte_accuracy(changed, original, mask)) == 100
    assert float(measures.edit_distance(changed, original)) == pytest.approx(100 / 95)


def test_edit_distances_are_those_of_a_count_by_hand():
    left = [b"kitten", b"", b"abc", b"abcd", b"abc"]
    right = [b"sitting", b"abc", b"abc", b"bcde", b""]
    assert measures.levenshtein(left, right).tolist() == [3, 3, 0, 2, 3]


def test_edits_of_long_texts_are_those_of_their_parts():
    text = b"one two three " * 300
    wrong = bytearray(text)
    for place in range(7, len(wrong), 100):
        wrong[place] = ord("#")
    found = float(measures.edit_distance(values(bytes(wrong)), values(text)))
    assert found == pytest.approx(100 * 42 / 4200)
    shifted = b"x" + text[:-1]
    # An insertion, and a deletion, in each of the five parts.
    assert float(measures.edit_distance(values(shifted), values(text))) == pytest.approx(
        100 * 10 / 4200
    )


def test_utf8_may_be_cut_at_its_ends_alone():
    text = "Grüße, 世界".encode()
    for first in range(len(text)):
        for end in range(first + 1, len(text) + 1):
            assert measures.is_utf8(text[first:end])
    assert not measures.is_utf8(b"a\xffb") and not measures.is_utf8(b"a\xc3b")
    assert not measures.is_utf8(b"ab\x80")


def test_passages_mark_whole_characters_and_leave_padding_out():
    first = values("aü b".encode() + b"\0\0")
    second = values("aé b".encode() + b"\0\0")
    ((mine, other),) = show.passages(first, second)
    assert mine == [("a", False), ("ü", True), (" b", False)]
    assert other == [("a", False), ("é", True), (" b", False)]
    assert show.differences(values(b"one\ntwx\n")[0], values(b"one\ntwo\n")[0])[1:] == [
        "-two",
        "+twx",
    ]


def test_letters_are_drawn_a_cell_for_a_byte():
    text = "aü\n\x07".encode()
    assert display.letters(text) == ["a", "ü", "", "¶", "·"]
    (drawn,) = display.lines(values(text))
    assert drawn.shape == (display.HEIGHT, 5 * display.WIDTH, 3)
    cells = 255 - drawn[..., 0].reshape(display.HEIGHT, 5, display.WIDTH)
    assert [bool(cells[:, number].any()) for number in range(5)] == [True, True, False, True, True]


# ------------------------------------------------------------------------------------------- models


def test_training_ends_with_figures_and_a_page_to_read(run, model, notes):
    figures = json.loads((run / "metrics.json").read_text())
    # More than one who always says the commonest byte.
    content = b"".join(path.read_bytes() for path in notes.rglob("*.txt"))
    commonest = np.bincount(np.frombuffer(content, np.uint8)).max() / len(content)
    assert figures["byte_accuracy"] > 150 * commonest and figures["bits_per_byte"] == 5
    assert 0 < figures["lossless_bits_per_value"] < 4
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<mark>" in page and "byte accuracy" in page
    # Lossless files are beside those that users know.
    assert "gzip -9" in page and "vqkit --lossless" in page
    assert " dB" not in page
    assert model.config.data.signal == "text" and model.artifact.coders.values is not None


def test_the_recipe_takes_five_bits_for_a_byte_of_whatever_there_is(tmp_path):
    contents = [b"x", b"one line", b"\xff\xfe\x80" * 30, "M\u00fchle\n".encode() * 40, bytes(70)]
    for number, content in enumerate(contents * 4):
        (tmp_path / f"{number}.txt").write_bytes(content + b"%d" % number)
    steps = ["train.steps=3", "train.max_minutes=null", "coder.steps=0"]
    model = train(tmp_path, tmp_path / "run", overrides=["data.item=line", *steps])
    assert model.metrics["bits_per_byte"] == pytest.approx(5)
    for content in contents:
        codes = model.encode(content)
        assert codes.shape == (1, 1, -(-len(content) // 2)) and codes.max() < 1024
        assert len(model.reconstruct(content)) == len(content)


def test_items_come_back_in_the_form_that_they_had(model):
    text = note(99)
    content = text.encode()
    array = np.frombuffer(content, np.uint8)
    as_bytes = model.reconstruct(content)
    assert isinstance(model.reconstruct(text), str) and isinstance(as_bytes, bytes)
    assert model.reconstruct(array).tobytes() == as_bytes and len(as_bytes) == len(content)
    assert model.reconstruct([content, content[:40]])[0] == as_bytes


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("content", [b"x", b"\xff\x00\xfe" * 30, note(5).encode()])
def test_files_of_text_give_back_what_they_hold(model, content, lossless):
    file = model.compress(content, lossless=lossless)
    found = model.decompress(file)
    wanted = content if lossless else model.reconstruct(content)
    assert np.asarray(found).tobytes() == wanted


def test_a_bundle_of_lossless_records_is_exact_and_small(run, notes, tmp_path, capsys):
    paths = sorted(notes.glob("*.txt"))
    words = ["compress", str(run), *map(str, paths), "--lossless", "--bundle", "--out"]
    # The empty one is skipped, which is said.
    assert cli.main([*words, str(tmp_path / "all.vq")]) != 0
    assert "empty.txt: it is empty" in capsys.readouterr().err
    back = tmp_path / "back"
    words = ["decompress", str(tmp_path / "all.vq"), "--model", str(run), "--out-dir", str(back)]
    assert cli.main(words) == 0
    total = 0
    for path in paths:
        if path.name != "empty.txt":
            assert (back / path.name).read_bytes() == path.read_bytes()
            total += path.stat().st_size
    assert (tmp_path / "all.vq").stat().st_size < total / 4


@pytest.mark.parametrize("lossless", [True, False])
def test_long_files_are_what_short_ones_are(run, tmp_path, monkeypatch, lossless):
    """Those of more than LONG bytes, which go through in pieces."""
    path = tmp_path / "long.txt"
    path.write_text(note(50, 900), encoding="utf-8")
    how = ["--lossless"] if lossless else []
    found = []
    for limit in (long_items.LONG, 300):
        monkeypatch.setattr(long_items, "LONG", limit)
        file = tmp_path / f"{limit}.vq"
        assert cli.main(["compress", str(run), str(path), "--out", str(file), *how]) == 0
        back = tmp_path / f"{limit}.txt"
        words = ["decompress", str(file), "--model", str(run), "--out", str(back)]
        assert cli.main(words) == 0
        assert not lossless or back.read_bytes() == path.read_bytes()
        found.append((file.read_bytes(), back.read_bytes()))
    assert found[0] == found[1]


def test_reconstructing_says_what_differs(run, notes, tmp_path, capsys):
    path = sorted(notes.glob("*.txt"))[0]
    assert cli.main(["reconstruct", str(run), str(path), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert " %  " in said and "dB" not in said and "bits_per_byte" in said
    before = [line[1:] for line in said.splitlines() if line.startswith("-")]
    assert before and set(before) <= set(path.read_text().splitlines())


def test_signals_are_not_taken_for_one_another(run, tmp_path):
    image = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(image)
    model = vqkit.load(run, device="cpu")
    with pytest.raises(VqkitError, match=r"a\.png: it is no text"):
        model.reconstruct(image)
    file = model.compress(b"some text", lossless=True)
    emoji = vqkit.load(Path(__file__).parents[2] / "golden" / "emoji-model", device="cpu")
    with pytest.raises(Exception, match="model|signal"):
        emoji.decompress(file)
    (tmp_path / "b.txt").write_text(note(1) * 20)
    settings = [*TINY, "data.signal=text", "data.item=bytes:64"]
    wrong = ["data.signal=text", "data.item=bytes:64", "model.network={kind: patch}"]
    with pytest.raises(VqkitError, match="no network for text"):
        train(tmp_path, tmp_path / "x", overrides=wrong)
    with pytest.raises(VqkitError, match="adversary"):
        train(tmp_path, tmp_path / "y", overrides=[*settings, "adversary.kind=patch"])


@pytest.fixture(scope="module")
def repairing(notes, tmp_path_factory):
    run = tmp_path_factory.mktemp("repairing") / "run"
    train(notes, run, "text-denoise", [*TINY, "coder.steps=0"])
    return run


def test_a_denoiser_is_measured_with_typos(repairing, notes, tmp_path, capsys):
    figures = json.loads((repairing / "metrics.json").read_text())
    assert set(figures["denoised"]) == {"up to 2 %", "up to 5 %", "up to 10 %"}
    settings = vqkit.load(repairing, device="cpu").config.data
    batch = next(open_text(notes, settings, seed=0).split(figures["split"], 1000))
    right = (with_typos(batch.values, 0.1, range(len(batch.values))) == batch.values)[:, 0]
    shares = [
        float(each[real].float().mean()) for each, real in zip(right, batch.mask, strict=True)
    ]
    assert figures["denoised"]["up to 10 %"]["noisy"] == pytest.approx(100 * np.mean(shares))
    path = sorted(notes.glob("*.txt"))[0]
    words = ["denoise", str(repairing), str(path), "--out", str(tmp_path / "clean")]
    assert cli.main([*words, "--strength", "1"]) == 0
    now = (tmp_path / "clean" / path.name).read_bytes()
    assert len(now) == path.stat().st_size
    said = capsys.readouterr().out
    wrong = np.mean(np.frombuffer(now, np.uint8) != np.frombuffer(path.read_bytes(), np.uint8))
    assert f"changed {100 * wrong:.2f} % of its bytes" in said and "deviation" not in said
    changed = [line[1:] for line in said.splitlines() if line.startswith("-")]
    assert changed and set(changed) <= set(path.read_text().splitlines())
    assert cli.main([*words, "--sigma", "3"]) == 2
    assert "give strength" in capsys.readouterr().err


def test_letters_are_replaced_where_others_are_so_much_likelier(repairing, notes):
    """Beside the logits, letter by letter."""
    model = vqkit.load(repairing, device="cpu")
    path = sorted(notes.glob("*.txt"))[0]
    noisy = with_typos(values(path.read_bytes()[:256]), 0.3, [0])
    network = model.network
    with torch.no_grad():
        latents = network.latents(model.tokenizer.standardise(noisy))
        codes = network.quantizer.encode(latents)
        logits = network.decoder(network.quantizer.decode(codes))[0]  # (256, T)
    changed = []
    for strength in (0.0, 0.5, 1.0):
        found = denoise(model, noisy[0], strength=strength).values[0]
        for place, letter in enumerate(noisy[0, 0].tolist()):
            best = int(logits[:, place].argmax())
            odds = float(logits[best, place] - logits[letter, place])
            expected = best if odds > (1 - strength) * SURE else letter
            assert int(found[place]) == expected, (strength, place)
        changed.append(int((found != noisy[0, 0]).sum()))
    assert changed[0] <= changed[1] < changed[2]
    whole = denoise(model, noisy[0]).values
    assert torch.equal(whole, denoise(model, noisy[0], strength=0.0).values)


def test_a_span_is_made_anew(run, notes, tmp_path):
    prior = ["train.steps=3", "network.width=32", "train.precision=float32"]
    assert cli.main(["train-prior", str(run), str(notes), *prior]) == 0
    path = sorted(notes.glob("*.txt"))[3]
    words = ["inpaint", str(run), str(path), "--mask", "40-60", "--out", str(tmp_path / "a.png")]
    assert cli.main([*words, "--each", str(tmp_path / "each")]) == 0
    (made,) = (tmp_path / "each").iterdir()
    original = path.read_bytes()
    assert len(made.read_bytes()) == len(original)
    assert made.read_bytes()[:40] == original[:40] and made.read_bytes()[60:] == original[60:]
    with pytest.raises(VqkitError, match="no span"):
        TEXT.read_mask("60-40", (100,), {})
    with pytest.raises(VqkitError, match="ends after"):
        TEXT.read_mask("100-140", (100,), {})


def test_codes_of_text_do_not_depend_on_how_it_is_called(run, notes, tmp_path, monkeypatch):
    found = assert_invariant(run, notes, tmp_path, monkeypatch)
    assert "padded to one length" in found["code_flips"]


def test_a_page_explains_codes_by_where_they_stand(run, notes, tmp_path):
    page = tmp_path / "codes.html"
    assert cli.main(["explain", str(run), str(notes), "--out", str(page)]) == 0
    said = page.read_text(encoding="utf-8")
    # A block on either side sees a patch more than the four bytes of a code.
    assert "all of it lies in 12 bytes" in said
    assert "cut-outs of real texts" in said and "the strings of 4 bytes" in said
    data = json.loads(said.split('id="data">')[1].split("</script>")[0])
    (first, second) = data["books"]
    assert all(1 <= len(text) <= 4 for text, _ in first["strings"][0])
    assert len(first["strings"]) == len(first["codes"]) and second["strings"] != first["strings"]


def test_strings_of_a_code_are_those_that_a_plain_loop_counts(model, notes):
    data = open_data(model, notes)
    sample = gather(model, data, "train", 100)
    book = explain(model, data, num=100).books[1]
    under = defaultdict(Counter)
    for item, text in enumerate(sample.values[:, 0].numpy()):
        whole = text[: sample.extents[item, 0]].tobytes()
        for cell, code in enumerate(sample.codes[item, 1].tolist()):
            piece = whole[4 * cell : 4 * cell + 4]
            if code >= 0 and len(piece) == 4:
                under[code]["".join(display.letters(piece))] += 1
    assert (~sample.is_whole).any(), "some end within a patch"
    for code, strings in zip(book.codes.tolist(), book.strings, strict=True):
        counts = [count for _, count in strings]
        assert counts == [count for _, count in under[code].most_common(8)]
        assert all(under[code][text] == count for text, count in strings)


def test_what_is_in_a_file_is_told(run, notes, tmp_path, capsys):
    path = sorted(notes.glob("*.txt"))[0]
    file = tmp_path / "a.vq"
    assert cli.main(["compress", str(run), str(path), "--lossless", "--out", str(file)]) == 0
    assert cli.main(["inspect", str(file)]) == 0
    said = capsys.readouterr().out
    assert "bytes" in said.split("coder")[1].splitlines()[0]


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(notes, tmp_path):
    settings = [*TINY, "data.noise.level=0.1", "coder.steps=0", "train.checkpoint_every=20"]
    train(notes, tmp_path / "whole", overrides=settings)
    broken = tmp_path / "broken"
    process = start(["-m", "vqkit", "train", str(notes), "--out", str(broken), *settings])
    wait_for(lambda: find_checkpoint(broken) is not None, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if not (broken / "model.safetensors").exists():
        train(notes, broken, None, [], resume=True)
    assert_same_weights(tmp_path / "whole" / "model.safetensors", broken / "model.safetensors")


def test_a_file_of_several_extents_is_refused(model):
    codec = model.compressor.codec(lossless=True)
    header = FileHeader((2, 3), 1, BYTES, codec.model_id, TEXT.number, VALUES)
    file = write_file(header, [Stage(0, b"abc")], None)
    with pytest.raises(FormatError, match="one axis"):
        model.decompress(file)


def test_codes_and_bytes_of_every_machine(model):
    """In arithmetic in which no sum depends on its order."""
    words = "Some words, and more of them. " * 9
    codes = model.encode(words)
    assert (model.encode(words, exact=True) == codes).all()
    file = model.compress(words)
    assert (model.decompress(file, exact=True) == model.decompress(file)).mean() > 0.99
