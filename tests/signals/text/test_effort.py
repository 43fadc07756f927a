"""Files of codes of text with an effort: fewer bytes are wrong, and files stay what they are."""

import numpy as np
import pytest

from tests.signals.text.conftest import note
from vqkit import cli
from vqkit.artifact import long_items, symbol_search
from vqkit.errors import VqkitError


def wrong(model, content, file):
    found = np.frombuffer(model.decompress(file), np.uint8)
    return int((found != np.frombuffer(content, np.uint8)).sum())


def test_more_bytes_come_back_with_more_effort(model):
    counts = {0: [], 1: [], 4: []}
    for seed in range(60, 62):
        content = note(seed).encode()
        for effort, found in counts.items():
            found.append(wrong(model, content, model.compress(content, effort=effort)))
    assert np.less_equal(counts[1], counts[0]).all() and np.less_equal(counts[4], counts[1]).all()
    assert sum(counts[4]) < sum(counts[1]) < 0.8 * sum(counts[0])


@pytest.mark.parametrize("content", [b"x", b"\xff\x00\xfe" * 3, "Mühle".encode()])
def test_texts_of_any_length_and_bytes_have_a_search(model, content):
    file = model.compress(content, effort=2)
    assert file == model.compress(content, effort=2)
    assert wrong(model, content, file) <= wrong(model, content, model.compress(content))
    assert wrong(model.exactly, content, file) == wrong(model, content, file)


def test_no_effort_leaves_every_byte_as_it_is(model):
    assert model.compress(note(7), effort=0) == model.compress(note(7))


def test_codes_do_not_depend_on_what_a_text_is_compressed_with(run, model, tmp_path, monkeypatch):
    """Alone, in a bundle of texts of two lengths, and as one that is too long to be held."""
    files = []
    for number, length in enumerate((200, 200, 90)):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(note(number, length).encode()[:length])
        files.append(str(path))
    words = ["compress", str(run), *files, "--effort", "2", "--bundle"]
    assert cli.main([*words, "--out", str(tmp_path / "all.vq")]) == 0
    bundle = list(model.compressor.read((tmp_path / "all.vq").read_bytes()))
    alone = []
    for path, found in zip(files, bundle, strict=True):
        words = ["compress", str(run), path, "--effort", "2", "--force", "--out"]
        assert cli.main([*words, str(tmp_path / "one.vq")]) == 0
        alone.append((tmp_path / "one.vq").read_bytes())
        (single,) = model.compressor.read(alone[-1])
        assert np.array_equal(found.codes, single.codes)
    monkeypatch.setattr(long_items, "LONG", 100)
    words[2] = files[0]
    assert cli.main([*words, str(tmp_path / "long.vq")]) == 0
    assert (tmp_path / "long.vq").read_bytes() == alone[0]


def test_a_file_is_not_larger_than_asked_whatever_the_effort(model, monkeypatch):
    content = note(3).encode()
    plain = model.compress(content)
    searched = model.compress(content, effort=2)
    assert searched != plain
    enough = 8 * max(len(plain), len(searched)) / len(content)
    assert model.compress(content, rate=enough, effort=2) == searched
    # Codes that take more than any others: those without an effort are taken.
    rng = np.random.default_rng(0)
    monkeypatch.setattr(
        symbol_search,
        "search",
        lambda tokenizer, codec, values, codes, tell: rng.integers(0, 1024, codes.shape),
    )
    assert len(model.compress(content, effort=2)) > len(plain)
    assert model.compress(content, rate=8 * len(plain) / len(content), effort=2) == plain


def test_lossless_files_and_other_efforts_are_refused(model):
    with pytest.raises(VqkitError, match="lossless files keep every value"):
        model.compress("some text", lossless=True, effort=1)
    with pytest.raises(VqkitError, match="whole number from 0 to 9"):
        model.compress("some text", effort=10)
