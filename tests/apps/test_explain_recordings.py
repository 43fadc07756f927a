"""`explain` of recordings, against sounds whose codes are known beforehand and plain loops."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import mutual_info_score

from vqkit.apps.explain import Explanation, explain, open_data
from vqkit.apps.explain.changes import changes_along
from vqkit.apps.explain.field import receptive_field
from vqkit.apps.explain.labels import information
from vqkit.apps.explain.sample import Sample, gather
from vqkit.artifact.build import build_model
from vqkit.artifact.model import Model
from vqkit.artifact.record import Artifact
from vqkit.config import load
from vqkit.errors import VqkitError
from vqkit.settings import Config
from vqkit.shapes import Shape
from vqkit.signals.audio.signal import AUDIO
from vqkit.signals.audio.source import normalisation_of

from ..signals.audio.conftest import RATE

# Samples of a cell, and cells of an item of training.
CELL = 4 * RATE // 100
CELLS = 16
NUM_FILES = 14


def sound(kind: str, seconds: float, seed: int) -> np.ndarray:
    """A dark buzz or a bright one, of one pitch throughout: int16 (T,)."""
    random = np.random.default_rng(seed)
    times = np.arange(round(seconds * RATE)) / RATE
    pitch = 130 + 10 * random.random()
    found = np.zeros_like(times)
    for harmonic in range(1, 28):
        dark = math.exp(-harmonic / 3)
        level = dark if kind == "dark" else math.exp(-abs(harmonic - 18) / 3)
        found += level * np.cos(2 * np.pi * harmonic * pitch * times + 6 * random.random())
    noise = 3e-4 * random.standard_normal(len(times))
    return np.rint(32768 * (0.1 * found + noise)).clip(-32768, 32767).astype(np.int16)


@pytest.fixture(scope="module")
def buzzes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("buzzes")
    for kind in ("bright", "dark"):
        (folder / kind).mkdir()
        for number in range(NUM_FILES):
            samples = sound(kind, 0.9 + 0.17 * number, number + 100 * (kind == "dark"))
            soundfile.write(folder / kind / f"{number}.wav", samples, RATE, "PCM_16")
    return folder


@pytest.fixture(scope="module")
def model(buzzes) -> Model:
    """A codec with four codes: 2 is a bright sound and 1 a dark one, the others are far from
    both.
    """
    torch.manual_seed(0)
    overrides = [
        f"data.sample_rate={RATE}",
        "data.channels=1",
        f"data.seconds={CELLS * CELL / RATE}",
        "data.validation=0.2",
        "data.test=0.2",
        "model.network.width=16",
        "model.network.decoder_blocks=1",
        "model.quantizer={kind: vq, codebook_size: 4, code_dim: 136}",
    ]
    config = load("speech", overrides, Config)
    normalisation = normalisation_of(1)
    network = build_model(config, Shape(1, (CELLS * CELL,)), normalisation).eval()
    codebook = torch.full((4, 136), 50.0)
    codebook[3] = -50.0
    for code, kind in ((2, "bright"), (1, "dark")):
        samples = torch.from_numpy(sound(kind, 1.0, 7))[None, None]
        codebook[code] = network.latents(normalisation.apply(samples)).mean((0, 2)).detach()
    network.load_state_dict({**network.state_dict(), "quantizer.codebook": codebook})
    data = {
        "channels": 1,
        "size": [CELLS * CELL],
        "sample_rate": RATE,
        "name": str(buzzes),
        "normalisation": normalisation.to_dict(),
    }
    return Model(Artifact(config, network, data), "cpu")


@pytest.fixture(scope="module")
def found(model, buzzes) -> Explanation:
    return explain(model, open_data(model, buzzes))


def original(buzzes: Path, name: str) -> np.ndarray:
    """The samples of a clip, from its file."""
    path, _, start = name.partition("@")
    samples, _ = soundfile.read(buzzes / path, dtype="int16")
    return samples[round(float(start.removesuffix("s")) * RATE) :]


# ------------------------------------------------------------------------------------ what is heard


def test_no_two_items_share_samples_and_they_are_long_enough_to_follow(model, buzzes):
    data = open_data(model, buzzes)
    assert data.shape.extent[0] % model.shape.extent[0] == 0
    assert 2 <= data.shape.extent[0] / RATE <= 3
    spans = sorted(zip(data.starts.tolist(), data.lengths.tolist(), strict=True))
    for (start, length), (following, _) in zip(spans, spans[1:], strict=False):
        assert start + length <= following


def test_cut_outs_are_the_samples_of_recordings_around_their_code(model, buzzes, found):
    pool = found.pool
    assert pool.window == RATE // 2 and pool.cell == CELL
    sample = gather(model, open_data(model, buzzes), "train", 4096)
    [book] = found.books
    assert sorted(book.codes.tolist()) == [1, 2]
    for code, cutouts, num in zip(book.codes, book.cutouts, book.num_cutouts, strict=True):
        assert num == len(cutouts)
        names = [pool.names[part] for part, _, _ in cutouts]
        assert len(set(names)) == num, "each from another recording"
        assert all(name.startswith("bright" if code == 2 else "dark") for name in names)
        for part, start, own in cutouts:
            played, rate = soundfile.read(io.BytesIO(pool.played[part]), dtype="int16")
            assert rate == RATE and len(played) == pool.lengths[part]
            assert start <= own < start + pool.window
            # In the middle, where the part goes on to both sides.
            middle = own + CELL // 2 - pool.window // 2
            assert start == np.clip(middle, 0, max(0, len(played) - pool.window))
            cut = played[start : start + pool.window]
            begin = pool.starts[part] + start
            whole = original(buzzes, pool.names[part])
            assert (cut == whole[begin : begin + pool.window]).all()
            cell, rest = divmod(int(pool.starts[part] + own), CELL)
            assert rest == 0 and sample.codes[pool.items[part], 0, cell] == code


def test_the_best_cut_outs_are_those_that_the_code_fits_best(model, buzzes, found):
    sample = gather(model, open_data(model, buzzes), "train", 4096)
    latents = model.network.latents(model.tokenizer.standardise(sample.values)).detach()
    quantized = model.network.quantizer.decode(sample.codes)
    apart = (latents - quantized).square().sum(1)
    pool = found.pool
    shown = set(zip(pool.items.tolist(), (pool.starts // (CELLS * CELL)).tolist(), strict=True))
    [book] = found.books
    for code, cutouts in zip(book.codes, book.cutouts, strict=True):
        best = {}
        for item, cell in (sample.codes[:, 0] == int(code)).nonzero().tolist():
            part = cell // CELLS
            length = min(CELLS * CELL, int(sample.extents[item, 0]) - part * CELLS * CELL)
            if (item, part) in shown and length >= pool.window:
                best[item] = min(best.get(item, math.inf), float(apart[item, cell]))
        chosen = [
            float(apart[pool.items[part], (pool.starts[part] + own) // CELL])
            for part, _, own in cutouts
        ]
        assert chosen == pytest.approx(sorted(best.values())[: len(chosen)], rel=1e-3)


# ------------------------------------------------------------------------------------- what is told


def test_sounds_of_a_class_have_the_code_of_that_class(found):
    labels = found.labels
    assert labels.names == ["bright", "dark"]
    # One code names the class, as far as there is anything to name.
    assert labels.information.bits.shape == (1,)
    counts = found.books[0].counts
    share = counts[1] / counts.sum()
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    assert labels.information.bits[0] == pytest.approx(entropy)
    assert labels.information.p_value == pytest.approx(1 / 200)
    marks = {
        labels.names[mark.label]: int(found.books[0].codes[mark.row]) for mark in labels.marks[0]
    }
    assert marks == {"bright": 2, "dark": 1}
    assert set(found.probe.accuracy) == {"latents", "vectors of the codes", "codes"}
    assert min(found.probe.accuracy.values()) == 1


def test_codes_that_are_counted_together_leave_padding_out():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    codes = np.where(random.random((200, 1, 9)) < 0.5, labels[:, None, None], 5)
    lengths = random.integers(1, 10, 200)
    codes[np.arange(9) >= lengths[:, None, None]] = -1
    found = information(codes, labels, np.random.default_rng(1))
    real = codes[:, 0] >= 0
    of_codes = np.broadcast_to(labels[:, None], real.shape)[real]
    expected = mutual_info_score(of_codes, codes[:, 0][real]) / math.log(2)
    assert found.bits == pytest.approx([expected], abs=1e-9)
    assert found.p_value == pytest.approx(1 / 200)
    # Labels of items are shuffled, not those of positions: ten codes in a row are one draw.
    repeated = np.repeat(random.integers(0, 4, (60, 1, 1)), 10, 2)
    blind = information(repeated, random.integers(0, 2, 60), np.random.default_rng(1))
    assert blind.p_value > 0.01 and blind.chance[0] == pytest.approx(
        3 / (2 * 60 * math.log(2)), rel=0.3
    )


def test_what_has_no_meaning_without_fixed_places_is_left_out(found):
    assert found.mean_item is None and found.importance is None
    assert not hasattr(found.books[0], "positions")
    assert found.wording.item == "recording" and found.wording.unit == "ms"


# ---------------------------------------------------------------------------------- what is changed


def test_swapped_sounds_are_those_of_swapped_codes(model, buzzes, found):
    data = open_data(model, buzzes)
    examples = gather(model, data, "test", 4096)
    swap = next(one for one in found.swaps if (one.code, one.other) == (1, 2))
    assert {(one.code, one.other) for one in found.swaps} == {(1, 2), (2, 1)}
    played = [soundfile.read(io.BytesIO(file), dtype="int16")[0] for file in swap.played]
    parts = examples.codes_of(model, swap.item).split(CELLS, 2)
    [part] = [one for one in parts if one[0, 0].eq(1).tolist() == swap.places.tolist()][:1]
    length = len(played[0])
    everywhere = part.clone()
    everywhere[part == 1] = 2
    here = part.clone()
    here[0, 0, swap.place[0]] = 2
    for expected, file in zip((part, here, everywhere), played, strict=True):
        made = model.tokenizer.decode(expected, [length])[0, 0].numpy()
        assert (made == file).all()
    as_it_was, changed, _ = (torch.from_numpy(file)[None, None] for file in played)
    assert swap.here == pytest.approx(float(AUDIO.change(changed, as_it_was)), rel=1e-5)


def test_changes_along_a_recording_are_those_of_one_position_each(model, buzzes):
    sample = gather(model, open_data(model, buzzes), "test", 3)
    found = changes_along(model, sample, 1)
    codes = sample.codes_of(model, 1)
    extent = sample.extents[1].tolist()
    assert len(found) == codes.shape[2]
    before = model.tokenizer.decode(codes, extent)
    for place in range(0, codes.shape[2], 7):
        # The next recording, and that behind it where the next one is over.
        others = [sample.codes[row, :, place] for row in (2, 0)]
        other = next((one for one in others if one[0] >= 0), codes[0, :, place])
        variant = codes.clone()
        variant[0, :, place] = other
        after = model.tokenizer.decode(variant, extent)
        expected = float(AUDIO.change(after, before))
        assert found[place] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_a_change_is_bounded_and_silence_is_no_measure():
    loud = torch.from_numpy(sound("dark", 0.5, 0))[None, None]
    silent = torch.zeros_like(loud)
    assert float(AUDIO.change(loud, loud)) == 0
    assert float(AUDIO.change(loud, silent)) == pytest.approx(100)
    assert float(AUDIO.change(silent, loud)) == pytest.approx(100)
    assert float(AUDIO.change(-loud, loud)) == 0, "phases are not heard"


def test_the_receptive_field_of_a_recording_is_that_of_its_encoder(model):
    network = build_model(model.config, model.shape, model.artifact.normalisation).eval()
    layer = torch.nn.Conv1d(1, 136, 3 * CELL, CELL, CELL)
    network.encoder = layer
    x = torch.randn(50, 1, CELLS * CELL, generator=torch.Generator().manual_seed(0))
    field = receptive_field(network, x, torch.Generator().manual_seed(0))
    assert field.extent == (3 * CELL,) and field.cell == (CELL,) and field.place == (CELLS // 2,)
    expected = layer.weight.detach().square().sum((0, 1)).double().numpy()
    first = (CELLS // 2 - 1) * CELL
    energy = field.energy[first : first + 3 * CELL]
    assert energy.sum() == pytest.approx(1)
    assert np.corrcoef(energy, expected)[0, 1] > 0.5
    inside = field.energy[first + CELL - field.margin : first + 2 * CELL + field.margin]
    assert inside.sum() >= 0.95


def test_padding_has_no_part_in_anything(model, buzzes):
    sample = gather(model, open_data(model, buzzes), "train", 8)
    assert not sample.is_whole.all()
    real = sample.mask.sum(1)
    assert (real.numpy() == sample.extents[:, 0]).all()
    for row in range(len(sample)):
        codes = sample.codes_of(model, row)
        assert (codes >= 0).all() and (sample.codes[row, :, codes.shape[2] :] == -1).all()
        assert sample.item(row).shape[2] == sample.extents[row, 0]
    assert isinstance(sample.first(2), Sample) and len(sample.first(2)) == 2


def test_scalar_codes_are_no_classes_that_could_be_explained(model, buzzes):
    quantizer = {"kind": "scalar", "channels": 136, "step": 1.0, "levels": 255}
    config = load("speech", [f"model.quantizer={quantizer}", f"data.sample_rate={RATE}"], Config)
    network = build_model(config, model.shape, model.artifact.normalisation).eval()
    scalar = Model(Artifact(config, network, model.data), "cpu")
    with pytest.raises(VqkitError, match="numbers on a scale"):
        explain(scalar, open_data(scalar, buzzes))
