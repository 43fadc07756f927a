"""Files of models of scalar codes: stages that several codebooks share, their coder and rates, and
what is refused.
"""

import copy
import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import vqkit
from tests.coding import second_decoder as second
from tests.coding.second_scalar import Scalar
from tests.untrained import MULTISCALE, STAGE, untrained
from vqkit import cli
from vqkit.artifact import codec as codecs
from vqkit.artifact import tokenizer as tokenizers
from vqkit.artifact.coder_files import CODER_FILE, find_artifact, save_coders
from vqkit.artifact.model import Model
from vqkit.artifact.operating_points import NAMES, Rate, measure
from vqkit.artifact.record import Coders
from vqkit.artifact.store import load_artifact, save_artifact
from vqkit.cli import arguments
from vqkit.coding import (
    CODES,
    MIXING,
    SCALAR,
    TRANSFORMER,
    UNIT_GAIN,
    Bundle,
    CorruptCodes,
    CorruptHeader,
    FormatError,
    OutOfBounds,
    ScalarCoder,
    Truncated,
    WrongModel,
    describe,
    read_file,
    write_file,
)
from vqkit.coding.format.numbers import crc_bytes, varint
from vqkit.coding.format.sections import section
from vqkit.errors import VqkitError
from vqkit.model import tiling

CHANNELS = 10
SHAPE = (2, CHANNELS, 63)
CODES_OF_ONE = {"kind": "scalar", "channels": CHANNELS, "levels": 63, "step": 0.5}
CODES_OF_TWO = {"kind": "residual", "num_stages": 2, "stage": CODES_OF_ONE}


@pytest.fixture(scope="module")
def unfitted():
    """A model whose coder was not fitted."""
    return untrained(quantizer=CODES_OF_TWO)


def bare(data):
    """A file without model id and check sum of its header."""
    file = read_file(data)
    return write_file(replace(file.header, model_id=None), file.stages)


def with_rate(model, rate):
    """The model with one more rate, named `here`."""
    coders = model.artifact.coders
    coders = replace(coders, rates={**coders.rates, "here": rate})
    return Model(replace(model.artifact, coders=coders))


def by_hand(data, coder, grid):
    """Codes (Q, *grid) that the second decoder reads."""
    found = second.decode_file(
        data, coder, lambda *size: grid, lambda *given: Scalar(*given, SHAPE)
    )
    return found.reshape(-1, *grid)


# -------------------------------------------------------------------------------------------- files


def test_a_file_holds_its_codes_and_the_second_decoder_reads_them(scalar, scalar_folder, images):
    for image in images[:3]:
        data = scalar.compress(image, "a.png")
        header = read_file(data).header
        assert (header.coder, header.holds, header.num_codebooks) == (SCALAR, CODES, 2)
        codes = scalar.encode(image)[0].numpy()
        assert codes.shape == (2 * CHANNELS, 4, 4)
        (found,) = scalar.compressor.read(data)
        assert np.array_equal(found.codes, codes) and found.name == "a.png"
        coder = (scalar_folder / CODER_FILE).read_bytes()
        assert np.array_equal(by_hand(data, coder, (4, 4)), codes)
        assert np.array_equal(
            scalar.decompress(data), scalar.decode(torch.from_numpy(codes)[None], double=True)[0]
        )


@pytest.mark.parametrize("extent", [(1, 1), (3, 17), (16, 5)])
def test_images_of_any_extent_come_back_as_their_codes(unfitted, extent):
    image = np.random.default_rng(0).integers(0, 256, (*extent, 3)).astype(np.uint8)
    data = unfitted.compress(image)
    (found,) = unfitted.compressor.read(data)
    codes = unfitted.encode(image)[0].numpy()
    assert np.array_equal(found.codes, codes)
    assert np.array_equal(by_hand(data, None, codes.shape[1:]), codes)
    assert unfitted.decompress(data).shape == image.shape


def test_the_model_id_is_what_the_document_says(scalar, scalar_folder, unfitted):
    digest = hashlib.sha256(
        json.loads((scalar_folder / "config.json").read_text())["content_id"].encode()
    )
    with safe_open(scalar_folder / CODER_FILE, "np") as file:
        for name in sorted(file.keys()):
            values = file.get_tensor(name)
            digest.update(f"{name}:{values.dtype}:{values.shape}\n".encode() + values.tobytes())
    assert scalar.compressor.model_id == digest.digest()[:8]
    alone = hashlib.sha256(unfitted.content_id.encode()).digest()[:8]
    assert unfitted.compressor.model_id == alone


def test_a_bundle_and_a_bare_stream_come_back(scalar, images):
    codec = scalar.compressor.codec()
    coded = scalar.compressor.code(torch.from_numpy(images[:5]).permute(0, 3, 1, 2), codec)
    data = scalar.compressor.write_bundle(coded, codec, [f"{n}.png" for n in range(5)])
    assert Bundle(data).header.num_codebooks == 2
    expected = scalar.encode(images[:5]).numpy()
    for item, codes in zip(scalar.compressor.read(data), expected, strict=True):
        assert np.array_equal(item.codes, codes)
    assert np.array_equal(scalar.compressor.read_item(data, "3").codes, expected[3])
    (found,) = scalar.compressor.read(bare(scalar.compress(images[0])))
    assert np.array_equal(found.codes, expected[0])


def test_a_file_that_is_cut_off_gives_its_first_stage(scalar, images):
    data = scalar.compress(images[0])
    codes = scalar.encode(images[0])[0].numpy()
    counts = set()
    for end in range(len(data)):
        try:
            (found,) = scalar.compressor.read(data[:end])
        except FormatError:
            continue
        assert found.truncated and found.is_coarser
        assert np.array_equal(found.codes, codes[:CHANNELS])
        counts.add(len(found.codes))
    assert counts == {CHANNELS}


def test_one_stage_without_a_residual_row_is_needed_whole(images):
    model = untrained(quantizer=CODES_OF_ONE)
    data = model.compress(images[0])
    assert read_file(data).header.num_codebooks == 1
    assert np.array_equal(next(model.compressor.read(data)).codes, model.encode(images[0])[0])
    with pytest.raises(Truncated):
        list(model.compressor.read(data[:-1]))


def test_one_channel_alone_is_no_scalar_file(images):
    """A model of one codebook has the coders that any has."""
    model = untrained(quantizer=CODES_OF_ONE | {"channels": 1})
    data = model.compress(images[0])
    assert read_file(data).header.coder == MIXING
    assert np.array_equal(next(model.compressor.read(data)).codes, model.encode(images[0])[0])


def test_lossless_files_are_as_those_of_any_model(scalar, images):
    data = scalar.compress(images[0], lossless=True)
    assert np.array_equal(scalar.decompress(data), images[0])


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("coder", [TRANSFORMER, MIXING])
def test_codes_under_a_coder_that_the_model_has_not_are_refused(unfitted, images, coder):
    """A wrong bit makes such a bare stream; whole files must be forged."""
    file = read_file(unfitted.compress(images[0]))
    for model_id in (None, file.header.model_id):
        forged = write_file(replace(file.header, coder=coder, model_id=model_id), file.stages)
        with pytest.raises(WrongModel, match="coder"):
            list(unfitted.compressor.read(forged))


def test_scalar_codes_of_other_models_are_refused(images, unfitted):
    file = read_file(unfitted.compress(images[0]))
    large = {"kind": "fsq", "levels": [8, 8, 8, 8, 8, 8]}
    for quantizer in (STAGE, large, {"kind": "hierarchical", "top": STAGE, "bottom": STAGE}):
        model = untrained(quantizer=quantizer)
        for model_id in (None, model.compressor.codec(lossless=True).model_id):
            header = replace(file.header, model_id=model_id)
            with pytest.raises(WrongModel):
                list(model.compressor.read(write_file(header, file.stages)))


def claiming(extent, stages, model_id, payload):
    """A file of an extent with a payload for each stage that is not its own."""
    header = b"\x96vq" + bytes([0x10 if model_id is None else 0x11]) + (model_id or b"")
    header += bytes([SCALAR, UNIT_GAIN]) + b"".join(map(varint, (*extent, stages)))
    if model_id is not None:
        header += crc_bytes(header)
    return header + section(1, bytes(4) + payload) * stages


def test_claims_of_more_than_is_decoded_are_refused_at_once(unfitted):
    model_id = unfitted.compressor.model_id
    wide = (1 << 14, 1 << 14)
    start = time.process_time()
    with pytest.raises(OutOfBounds, match="positions"):
        list(unfitted.compressor.read(claiming(wide, 2, model_id, b"")))
    with pytest.raises(OutOfBounds, match="header has no check sum"):
        list(unfitted.compressor.read(claiming((64, 64), 2, None, b"")))
    with pytest.raises(CorruptHeader, match="3 stages; the model has 2"):
        list(unfitted.compressor.read(claiming((4, 4), 3, model_id, b"")))
    # Three million positions, and bytes that end at one of the first.
    with pytest.raises(CorruptCodes):
        list(unfitted.compressor.read(claiming((1 << 12, 3 << 10), 1, model_id, b"\xff" * 9)))
    assert time.process_time() - start < 5


def test_no_bytes_at_all_are_codes_that_do_not_have_their_sum(unfitted):
    with pytest.raises(CorruptCodes):
        list(unfitted.compressor.read(claiming((16, 16), 2, unfitted.compressor.model_id, b"")))


def test_what_is_written_at_any_rate_can_be_read(scalar, images, monkeypatch):
    """The bound is that of all stages, although a file of a rate has fewer codes."""
    assert scalar.artifact.coders.rates["lowest"].num_stages == 1
    monkeypatch.setattr(codecs, "MAX_SCALAR", 2 * CHANNELS * 20)
    data = scalar.compress(images[0], rate="lowest")
    assert len(list(scalar.compressor.read(data))) == 1
    twice = np.concatenate([images[0], images[1]])
    for rate in ("lowest", "full"):
        with pytest.raises(OutOfBounds, match="20 positions"):
            scalar.compress(twice, rate=rate)
    codec = scalar.compressor.codec(rate="lowest")
    coded = scalar.compressor.code(torch.from_numpy(images[:3]).permute(0, 3, 1, 2), codec)
    bundle = scalar.compressor.write_bundle(coded, codec, ["a", "b", "c"])
    assert Bundle(bundle).header.block_size == 1
    assert len(list(scalar.compressor.read(bundle))) == 3
    monkeypatch.setattr(codecs, "MAX_DECODED", 15)
    with pytest.raises(OutOfBounds, match="15 positions"):
        scalar.compress(images[0])


def test_rows_that_are_too_long_are_refused(images, monkeypatch):
    """Codes of a few rows are at hand together: an image may be larger, but not a row of it."""
    model = untrained(quantizer=CODES_OF_TWO)
    model_id = model.compressor.model_id
    monkeypatch.setattr(codecs, "MAX_AT_HAND", 6 * 20 * 2 * CHANNELS)
    codec = model.compressor.codec()
    tile = model.network.tile[0] // model.network.tile_grid[0]
    assert codec.grid((100 * tile, 20 * tile)) == (100, 20)
    assert codec.grid((2 * tile, 60 * tile)) == (2, 60)
    for rows, columns in ((6, 21), (100, 21), (2, 61), (1, 121)):
        extent = (rows * tile, columns * tile)
        with pytest.raises(OutOfBounds, match="120 positions in 6 rows"):
            codec.grid(extent)
        with pytest.raises(OutOfBounds, match="120 positions in 6 rows"):
            list(model.compressor.read(claiming(extent, 2, model_id, b"")))


@pytest.mark.parametrize("gain", [1.0, 1.3])
@pytest.mark.parametrize("stages", [1, 2])
def test_codes_of_large_items_are_those_of_the_whole(monkeypatch, gain, stages):
    """Part by part and a few rows at a time, from values to codes and back, to the bit; of a side
    that is no whole number of squares, too.
    """
    kind = {"kind": "scalar", "channels": 192, "levels": 255, "step": 0.2}
    quantizer = {"kind": "residual", "num_stages": 2, "stage": kind}
    model = untrained(network=MULTISCALE, quantizer=quantizer)
    tokenizer = model.tokenizer
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.integers(0, 256, (3, 150, 203), np.uint8))
    extent = tuple(values.shape[1:])
    whole = tokenizer.encode(values[None], gain=gain)[:, : stages * 192]
    padded = torch.nn.functional.pad(whole, (0, 0, 0, 0, 0, (2 - stages) * 192), value=-1)
    shown = tokenizer.decode(padded, extent, double=True, gain=gain)
    monkeypatch.setattr(tiling, "NUM_MARGINS", 1)
    for positions in (1 << 20, 1):
        for network in (tokenizer.network, tokenizer._double):
            monkeypatch.setattr(network, "part_positions", positions)
        monkeypatch.setattr(tokenizers, "CODES_TOGETHER", positions)
        counts = tokenizer.grid(extent)
        reach = tokenizer.network.decoder_reach
        count = len(list(tiling.parts_of(tokenizer.network, counts, reach)))
        assert count == 1 if positions > 1 else count > 4
        codes = tokenizer.encode_scalar(values, stages * 192, gain)
        assert np.array_equal(codes, whole[0])
        found = tokenizer.decode_scalar([codes, codes], extent, double=True, gain=gain)
        assert found.dtype == torch.uint8
        assert torch.equal(found[0], shown[0]) and torch.equal(found[1], shown[0])


def test_more_codes_than_a_coder_takes_are_said(images):
    stage = CODES_OF_ONE | {"channels": 1024}
    model = untrained(quantizer={"kind": "residual", "num_stages": 9, "stage": stage})
    with pytest.raises(VqkitError, match="9216 codes a position"):
        model.compress(images[0])
    assert np.array_equal(model.decompress(model.compress(images[0], lossless=True)), images[0])


# ------------------------------------------------------------------------------------ coders' files


@pytest.mark.parametrize("shape", [(4, 5, 63), (1, 20, 63), (2, 10, 31)])
def test_a_coder_of_another_shape_beside_a_model_is_not_used(
    scalar, scalar_folder, tmp_path, shape
):
    """Of as many codes in all, and of the same shape with fewer levels."""
    folder = copied(scalar_folder, tmp_path)
    coders = Coders(codes=ScalarCoder.new(*shape))
    save_coders(replace(scalar.artifact, coders=coders), folder)
    problems = load_artifact(folder).problems
    assert len(problems) == 1 and "fitted to another model" in problems[0]


def test_tensors_that_are_no_coder_are_reported(scalar_folder, images, tmp_path):
    folder = copied(scalar_folder, tmp_path)
    path = folder / CODER_FILE
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    # Without its sum, and named as what it holds.
    del metadata["crc32"]
    changes = {
        "levels": torch.tensor([64], dtype=torch.int32),
        "predicted": tensors["predicted"] + 2,
        "probabilities": tensors["probabilities"] * 0,
        "counts": tensors["counts"][:, :-1].contiguous(),
        "weights": tensors["weights"].long(),
    }
    for name, value in changes.items():
        broken = tensors | {name: value}
        arrays = {key: one.numpy() for key, one in broken.items()}
        coding_id = codecs.model_id(metadata["content_id"], arrays).hex()
        save_file(broken, path, metadata | {"coding_id": coding_id})
        with pytest.warns(UserWarning, match="cannot read the coder"):
            loaded = vqkit.load(folder, device="cpu")
        assert loaded.artifact.coders.codes is None and loaded.artifact.coders.rates == {}
        # All else works, with the coder that a model has from the start.
        assert read_file(loaded.compress(images[0])).header.coder == SCALAR


def test_files_of_a_coder_that_was_replaced_are_read(scalar, scalar_folder, images, tmp_path):
    folder = copied(scalar_folder, tmp_path)
    np.save(tmp_path / "others.npy", images[20:])
    assert cli.main(["train-coder", str(folder), str(tmp_path / "others.npy"), "--force"]) == 0
    model = vqkit.load(folder, device="cpu")
    assert len([one for one in model.artifact.coders.older if isinstance(one, ScalarCoder)]) == 1
    old = scalar.compress(images[0])
    assert model.compress(images[0]) != old
    assert np.array_equal(model.decompress(old), scalar.decompress(old))


def test_files_of_a_model_without_a_coder_find_it(unfitted, images, tmp_path):
    save_artifact(unfitted.artifact, tmp_path / "model")
    (tmp_path / "a.vq").write_bytes(unfitted.compress(images[0]))
    assert find_artifact(tmp_path / "a.vq", [tmp_path]) == tmp_path / "model"


def copied(folder: Path, where: Path) -> Path:
    return Path(shutil.copytree(folder, where / "model"))


# -------------------------------------------------------------------------------------------- rates


def test_lower_rates_are_smaller_files_that_decode(scalar, images):
    rates = scalar.artifact.coders.rates
    assert {"lowest", "full"} <= set(rates) <= set(NAMES) and len(rates) > 2
    assert {rate.gain for rate in rates.values()} > {UNIT_GAIN}
    sizes = {}
    for name, rate in rates.items():
        total = 0
        for image in images[:8]:
            data = scalar.compress(image, rate=name)
            assert describe(data).header.num_codebooks == rate.num_stages
            codes = next(scalar.compressor.read(data)).codes
            assert codes.shape == (rate.num_stages * CHANNELS, 4, 4)
            total += len(data)
        sizes[name] = total
    assert sizes["lowest"] < sizes["full"]
    assert scalar.compress(images[0], rate="full") == scalar.compress(images[0])


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("gain", [0, 100, 137, 255])
def test_a_gain_is_a_finer_step(scalar, images, stages, gain):
    """Codes at a gain are those of latents that were multiplied by it, and the decoder gets what
    they stand for divided by it; a second decoder finds the gain in the header.
    """
    factor = 2 ** ((gain - 128) / 16)
    model = with_rate(scalar, Rate(stages, 0.0, 0.0, 0.0, gain))
    data = model.compress(images[0], "a.png", rate="here")
    reader = second.Reader(data)
    assert second.read_beginning(reader, (second.FILE,)).gain == gain
    network = scalar.network
    values = torch.from_numpy(images[:1]).permute(0, 3, 1, 2)
    with torch.no_grad():
        latents = network.latents(scalar.tokenizer.standardise(values))
        codes = network.quantizer.encode(latents * factor)
        (found,) = scalar.compressor.read(data)
        assert np.array_equal(found.codes, codes[0, : stages * CHANNELS])
        codes[0, stages * CHANNELS :] = -1
        quantized = network.quantizer.decode(codes) / factor
        exact = copy.deepcopy(network).double()
        shown = scalar.tokenizer.restore(exact.decode_latents(quantized.double(), (16, 16)))
    assert np.array_equal(scalar.decompress(data), shown[0].permute(1, 2, 0))
    assert np.array_equal(scalar.decompress(bare(data)), shown[0].permute(1, 2, 0))


def test_a_bundle_has_the_gain_of_its_rate(scalar, images):
    model = with_rate(scalar, Rate(2, 0.0, 0.0, 0.0, 120))
    codec = model.compressor.codec(rate="here")
    values = torch.from_numpy(images[:3]).permute(0, 3, 1, 2)
    coded = model.compressor.code(values, codec)
    data = model.compressor.write_bundle(coded, codec, ["a", "b", "c"])
    assert second.read_beginning(second.Reader(data), (second.BUNDLE,)).gain == 120
    alone = [model.compress(image, rate="here") for image in images[:3]]
    bundled = scalar.compressor.decode(list(scalar.compressor.read(data)))
    for values, one in zip(bundled, alone, strict=True):
        assert np.array_equal(values.permute(1, 2, 0), scalar.decompress(one))


def test_no_other_coder_has_a_gain(images):
    model = untrained()
    file = read_file(model.compress(images[0]))
    with pytest.raises(ValueError, match="gain"):
        write_file(replace(file.header, gain=100), file.stages)


def test_rates_are_all_stages_at_all_gains(scalar, images):
    values = torch.from_numpy(images[:4]).permute(0, 3, 1, 2)
    latents = scalar.network.latents(scalar.tokenizer.standardise(values))
    coder = scalar.artifact.coders.codes
    found = measure(scalar.network.quantizer, coder, latents, lambda codes, gain: 0.0, True, 1.75)
    assert {(one.num_stages, one.gain) for one in found} == {
        (stages, gain) for stages in (1, 2) for gain in (116, 120, 124, 128, 132, 136, 140)
    }
    for stages in (1, 2):
        bits = [
            one.bits for one in sorted(found, key=lambda one: one.gain) if one.num_stages == stages
        ]
        assert bits == sorted(bits) and bits[0] < bits[-1]
    late = measure(
        scalar.network.quantizer, coder, latents, lambda codes, gain: 0.0, True, 1.75, lambda: False
    )
    assert [(one.num_stages, one.gain) for one in late] == [(1, 128), (2, 128)]


def test_a_file_of_so_many_bits_is_the_largest_that_fits(scalar, images):
    """Against every file that the model can write of an image."""
    sizes = []
    for stages in (1, 2):
        for gain in range(128 - 25, 128 + 26):
            model = with_rate(scalar, Rate(stages, 0.0, 0.0, 0.0, gain))
            sizes.append(len(model.compress(images[0], "a.png", rate="here")))
    assert len(set(sizes)) > 15
    # Next to each other they may be out of order by a few bytes of noise.
    for size in sizes[::5]:
        data = scalar.compress(images[0], "a.png", rate=8 * size / 256)
        assert len(data) <= size and len(data) in sizes
        assert len(data) > 0.9 * max(one for one in sizes if one <= size)
    with pytest.raises(VqkitError, match="smallest file .* bits per position, more than 0.01"):
        scalar.compress(images[0], rate=0.01)
    with pytest.raises(VqkitError, match="lossless files have no rate"):
        scalar.compress(images[0], rate=1.0, lossless=True)


def test_a_model_of_one_rate_alone_fits_or_does_not(unfitted, images):
    whole = unfitted.compress(images[0])
    one = untrained(quantizer=CODES_OF_ONE | {"channels": 1})
    assert one.compress(images[0], rate=1e3) == one.compress(images[0])
    with pytest.raises(VqkitError, match="smallest file"):
        one.compress(images[0], rate=1e-3)
    assert unfitted.compress(images[0], rate=8 * len(whole) / 256) == whole


@pytest.mark.parametrize("gain", [-1, 256, 1.5, "128", True])
def test_a_gain_that_is_no_byte_is_no_rate(gain):
    point = {"num_stages": 1, "weight": 0.0, "bits": 1.0, "psnr": 1.0, "gain": gain}
    with pytest.raises(ValueError, match="no point"):
        Rate.read(point)


# ----------------------------------------------------------------------------------- command line


def test_the_verbs(scalar_folder, images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(scalar_folder, "model")
    for number in range(2):
        Image.fromarray(images[number]).save(f"{number}.png")
    assert cli.main(["compress", "model", "0.png", "1.png", "--out-dir", "out"]) == 0
    assert cli.main(["compress", "model", "0.png", "1.png", "--bundle", "--out", "all.vq"]) == 0
    capsys.readouterr()
    assert cli.main(["inspect", "out/0.vq"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["coder", "scalar"] in shown and ["stages", "2"] in shown
    assert cli.main(["verify", "out/0.vq", "all.vq"]) == 0
    assert cli.main(["decompress", "out/0.vq", "all.vq", "--out-dir", "back"]) == 0
    first = np.array(Image.open("back/0.png"))
    assert np.array_equal(first, vqkit.load("model").decompress("out/0.vq"))
    damaged = bytearray(Path("out/0.vq").read_bytes())
    damaged[-1] ^= 64
    Path("bad.vq").write_bytes(damaged)
    assert cli.main(["verify", "bad.vq"]) == 1


def test_named_rates_can_be_typed():
    assert arguments.RATES == NAMES


def test_the_verb_takes_bits_for_each_pixel(scalar, scalar_folder, images, tmp_path, capsys):
    for number in range(2):
        Image.fromarray(images[number]).save(tmp_path / f"{number}.png")
    files = [str(tmp_path / f"{number}.png") for number in range(2)]
    command = ["compress", str(scalar_folder), *files, "--rate"]
    size = len(scalar.compress(images[0], "0.png"))
    bits = 0.8 * 8 * size / 256
    assert cli.main([*command, str(bits), "--out-dir", str(tmp_path / "out")]) == 0
    for number in range(2):
        data = (tmp_path / "out" / f"{number}.vq").read_bytes()
        assert 8 * len(data) / 256 <= bits
        assert data == scalar.compress(images[number], f"{number}.png", rate=bits)
    assert cli.main(["inspect", str(tmp_path / "out" / "0.vq")]) == 0
    gain = float(capsys.readouterr().out.split("gain")[1].split()[0])
    first = read_file((tmp_path / "out" / "0.vq").read_bytes())
    assert gain == pytest.approx(2 ** ((first.header.gain - 128) / 16), rel=0.01)
    few = [*command, "0.01", "--out-dir", str(tmp_path / "few")]
    assert cli.main(few) == 1
    assert capsys.readouterr().err.count("smallest file that this model makes") == 2
    assert not list((tmp_path / "few").glob("*"))
    out = ["--out", str(tmp_path / "x.vq")]
    for wrong, said in (
        ([*command, "3", "--bundle", *out], "a bundle has one rate"),
        ([*command, "3", "--lossless", "--out-dir", str(tmp_path)], "leave --rate out"),
        ([*command, "best", "--out-dir", str(tmp_path)], "nor lowest, low, medium"),
    ):
        assert cli.main(wrong) != 0
        assert said in capsys.readouterr().err
    for number in ("nan", "-1", "0", "inf"):
        assert cli.main([*command, number, "--out-dir", str(tmp_path)]) != 0
        assert "a number above 0, nor lowest" in capsys.readouterr().err
    assert not (tmp_path / "x.vq").exists()
