"""What `vqkit check` finds of a model, and that it finds what is wrong."""

from __future__ import annotations

import json
import math
import shutil

import pytest

import vqkit
from vqkit import cli
from vqkit.apps import check as checks
from vqkit.apps.check import check, items_of
from vqkit.artifact.tokenizer import Tokenizer
from vqkit.model.tiling import Reach

from ..signals.audio.conftest import codec, codec_folder, recordings  # noqa: F401


def test_a_model_of_images_gives_the_same_however_it_is_called(model, emoji):
    found = check(model, items_of(model, emoji))
    assert found.is_invariant
    assert set(found.code_flips) == set(found.value_flips)
    num_codes = next(iter(found.code_flips.values()))[1]
    of_item = math.prod(model.tokenizer.grid(model.shape.extent)) * model.tokenizer.num_codebooks
    assert num_codes == found.figures["items"] * of_item
    batch = next(emoji.split("test", checks.NUM_ITEMS)).values
    shown = model.tokenizer.decode(model.tokenizer.encode(batch), batch.shape[2:], double=True)
    expected = model.signal.measures(shown, batch)["psnr"].double().mean()
    assert found.figures["quality"] == pytest.approx(float(expected), abs=1e-4)
    damaged = found.figures["quality_damaged_5"]
    assert damaged < found.figures["quality_damaged_1"] < found.figures["quality"]


def test_a_codec_is_looked_at_in_pieces_and_padded_too(codec, recordings):  # noqa: F811
    from vqkit.apps.evaluate import open_for

    found = check(codec, items_of(codec, open_for(codec, recordings, "train"), "train"))
    assert found.is_invariant
    assert {"padded to one length", "in pieces of 1 tiles"} <= set(found.code_flips)
    assert "in pieces of 3 tiles" in found.value_flips


def test_codes_that_depend_on_the_batch_are_found(model, emoji, monkeypatch):
    encode = Tokenizer.encode

    def leaky(self, values, *also, **more):
        codes = encode(self, values, *also, **more)
        if len(values) > 1:
            codes[0, 0, 0, 0] = (codes[0, 0, 0, 0] + 1) % model.network.quantizer.codebook_size
        return codes

    monkeypatch.setattr(Tokenizer, "encode", leaky)
    found = check(model, items_of(model, emoji))
    assert not found.is_invariant
    assert found.code_flips["in batches of 64"][0] == 1
    # One in every batch of two.
    assert found.code_flips["in batches of 2"][0] == found.figures["items"] // 2
    assert found.code_flips["on 1 threads"][0] == 0
    assert not any(count for count, _ in found.value_flips.values())


def test_parts_that_see_too_little_are_found(model, emoji, monkeypatch):
    items = items_of(model, emoji)
    flips, num_codes = check(model, items).code_flips[checks.IN_PARTS]
    # Parts are as wide as four margins, and there are several along each dimension.
    cells = [4 * max(model.network.reach) * side for side in model.network.tile_grid]
    assert flips == 0 and num_codes > math.prod(cells)
    monkeypatch.setattr(model.network, "reach", Reach(0, 0))
    assert check(model, items).code_flips[checks.IN_PARTS][0] > 0


def test_what_was_found_goes_into_the_artifact_and_its_card(
    run_folder, tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    out = tmp_path / "check.json"
    assert cli.main(["check", str(folder), "emoji", "--json", str(out)]) == 0
    said = capsys.readouterr().out
    assert "codes in batches of 7" in said and "0 of" in said
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.count("## Check") == 1 and "the test split of emoji" in card
    metrics = vqkit.load(folder, device="cpu").metrics
    everything = json.loads(out.read_text())
    assert metrics["check"]["code_flips"] == 0
    assert metrics["check"]["codes"] == sum(n for _, n in everything["code_flips"].values())
    # No other process may find other exact codes or values, whatever its instructions.
    assert "exact codes with SSE4.2" in said and "With AVX2 instead" in card
    for flips in everything["elsewhere"].values():
        assert flips["exact codes"][0] == flips["exact values"][0] == 0
        assert flips["codes"][1] == flips["exact codes"][1] > 0
    assert metrics["check"]["elsewhere"] == everything["elsewhere"]
    assert cli.main(["info", str(folder)]) == 0
    monkeypatch.setattr("vqkit.pipelines.check.flips_elsewhere", lambda *_: {})
    assert cli.main(["check", str(folder)]) == 0
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "items made up by the model" in card and card.count("## Check") == 1


def test_a_model_without_codes_is_refused(tmp_path, emoji):
    words = ["model.quantizer.kind=none", "train.steps=2", "model.network.width=16"]
    vqkit.train("emoji", tmp_path / "plain", None, words)
    with pytest.raises(vqkit.VqkitError, match="no codes to check"):
        items_of(vqkit.load(tmp_path / "plain", device="cpu"), emoji)
