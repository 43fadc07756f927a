"""Exported programs give the codes and values of the model that they come from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import vqkit
from vqkit import cli
from vqkit.errors import VqkitError
from vqkit.export.formats import OPSET, export
from vqkit.export.programs import programs

from ..untrained import MULTISCALE, untrained

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "emoji-model"
# Quantizers that choose codes in ways of their own, and one with a network for photographs.
KINDS = {
    "fsq": {"quantizer": {"kind": "fsq", "levels": [5, 5, 5]}},
    "lfq": {"quantizer": {"kind": "lfq", "bits": 8}},
    "product": {"quantizer": {"kind": "product", "num_groups": 2}},
    "hierarchical": {"quantizer": {"kind": "hierarchical"}},
    "pyramid": {"quantizer": {"kind": "pyramid", "num_grids": 2}},
    "photographs": {
        "network": MULTISCALE,
        "quantizer": {"kind": "residual", "num_stages": 2, "stage": {"kind": "scalar"}},
    },
}


@pytest.fixture(scope="module")
def model():
    return vqkit.load(GOLDEN, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("exported") / "onnx"
    assert cli.main(["export", str(GOLDEN), "--to", "onnx", "--out", str(target)]) == 0
    return target


def values(model, count: int, tiles: tuple[int, int]) -> torch.Tensor:
    """Random images (count, C, H, W) uint8 of so many tiles."""
    extent = [number * side for number, side in zip(tiles, model.network.tile, strict=True)]
    generator = torch.Generator().manual_seed(count)
    size = (count, model.shape.channels, *extent)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("count", "tiles"), [(1, (2, 2)), (1, (9, 2)), (7, (4, 4))])
def test_onnx_files_give_the_codes_and_values_of_the_model(model, folder, count, tiles):
    encoder = onnxruntime.InferenceSession(folder / "encoder.onnx")
    decoder = onnxruntime.InferenceSession(folder / "decoder.onnx")
    images = values(model, count, tiles)
    wanted = model.tokenizer.encode(images)
    (codes,) = encoder.run(None, {"values": images.numpy()})
    assert codes.dtype == np.int64 and np.array_equal(codes, wanted.numpy())
    (pixels,) = decoder.run(None, {"codes": codes})
    far = np.abs(pixels.astype(int) - model.tokenizer.decode(wanted).numpy())
    # A value at the edge between two levels may be rounded to either.
    assert pixels.dtype == np.uint8 and far.max() <= 1 and (far > 0).mean() < 1e-3
    # Stages that are left out decode in the file too.
    wanted[:, 1:] = -1
    (pixels,) = decoder.run(None, {"codes": wanted.numpy()})
    assert np.abs(pixels.astype(int) - model.tokenizer.decode(wanted).numpy()).max() <= 1


def test_onnx_files_say_what_they_belong_to(model, folder):
    for part in ("encoder", "decoder"):
        content = onnx.load(folder / f"{part}.onnx")
        assert [one.version for one in content.opset_import if not one.domain] == [OPSET]
        found = {one.key: one.value for one in content.metadata_props}
        assert found.pop("vqkit.part") == part
        found = {name: json.loads(value) for name, value in found.items()}
        assert found["vqkit.id"] == model.content_id
        assert found["vqkit.signal"] == "image"
        assert found["vqkit.normalisation"] == model.data["normalisation"]
        assert found["vqkit.codebook_sizes"] == [32, 32]
        assert found["vqkit.tile"] == [4, 4] and found["vqkit.tile_grid"] == [1, 1]
        assert found["vqkit.least_tiles"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_programs_of_every_family_give_the_codes_of_the_model(kind):
    model = untrained(**KINDS[kind])
    encoder, decoder = (program.exported.module() for program in programs(model))
    for count, tiles in ((1, (3, 4)), (3, (5, 3))):
        images = values(model, count, tiles)
        codes = model.tokenizer.encode(images)
        assert torch.equal(encoder(images), codes)
        far = decoder(codes).int() - model.tokenizer.decode(codes).int()
        assert far.abs().max() <= 1 and (far != 0).float().mean() < 1e-3


def test_programs_of_models_that_encode_in_float64_do_so(monkeypatch):
    model = untrained()
    weight = next(model.network.parameters())
    monkeypatch.setattr(model.network, "encodes_exactly", True)
    encoder, decoder = (program.exported for program in programs(model))
    assert torch.float32 not in {value.dtype for value in encoder.state_dict.values()}
    assert torch.float64 not in {value.dtype for value in decoder.state_dict.values()}
    images = values(model, 3, (3, 4))
    assert torch.equal(encoder.module()(images), model.tokenizer.encode(images))
    # The model itself stays as it was.
    assert weight is next(model.network.parameters()) and weight.dtype == torch.float32


def test_programs_are_files_of_torch(tmp_path, model):
    paths = export(model, "torch-export", tmp_path)
    assert [path.name for path in paths] == ["encoder.pt2", "decoder.pt2"]
    extra = {"vqkit.json": ""}
    encoder = torch.export.load(paths[0], extra_files=extra).module()
    images = values(model, 2, (3, 5))
    assert torch.equal(encoder(images), model.tokenizer.encode(images))
    assert json.loads(extra["vqkit.json"])["vqkit.id"] == model.content_id


def test_the_example_needs_neither_torch_nor_vqkit(model, folder, tmp_path):
    image = values(model, 1, (9, 6))[0, :, :35, :22].permute(1, 2, 0).numpy()
    Image.fromarray(image).save(tmp_path / "in.png")
    script = ROOT / "examples" / "onnx_without_torch.py"
    assert script.read_text(encoding="utf-8").count("\n") <= 40
    code = (
        "import runpy, sys\n"
        "sys.modules['torch'] = sys.modules['vqkit'] = None\n"
        f"sys.argv[0] = {str(script)!r}\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    words = [sys.executable, "-c", code, folder, tmp_path / "in.png", tmp_path / "out.png"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 x 9 x 6 codes" in done.stdout
    with Image.open(tmp_path / "out.png") as file:
        found = np.asarray(file).astype(int)
    assert np.abs(found - model.reconstruct(image[None])[0]).max() <= 1


def test_what_cannot_be_exported_is_said(model, monkeypatch, tmp_path):
    speech = untrained()
    monkeypatch.setattr(speech.network, "clock", object())
    with pytest.raises(VqkitError, match="network 'patch' cannot be exported"):
        programs(speech)
    with pytest.raises(VqkitError, match="quantizer is 'none'"):
        programs(untrained(quantizer={"kind": "none", "code_dim": 4}))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(VqkitError, match=r"need onnxscript: pip install 'vqkit\[onnx\]'"):
        export(model, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    words = ["export", str(GOLDEN), "--to", "torch-export", "--out", str(tmp_path)]
    assert cli.main(words) == 2
