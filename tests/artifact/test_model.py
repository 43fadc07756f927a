"""What users call on a model: every form of item, codes that are none, how it looks, where it
runs.
"""

import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import vqkit
from tests.untrained import untrained
from vqkit.artifact import tokenizer
from vqkit.artifact.device import resolve_device
from vqkit.errors import VqkitError


@pytest.fixture(scope="module")
def batch(emoji):
    """uint8 (B, H, W, C)"""
    return emoji.read(emoji.splits["test"][:6]).values.permute(0, 2, 3, 1).contiguous().numpy()


@pytest.fixture(scope="module")
def codes(model, batch):
    return model.encode(batch)


# -------------------------------------------------------------------------------------------- forms


def test_every_form_of_image_gives_the_same_codes(model, batch, codes, tmp_path):
    assert codes.dtype == torch.int64 and codes.shape == (6, 1, 8, 8)
    assert torch.equal(model.encode([Image.fromarray(image) for image in batch]), codes)
    assert torch.equal(model.encode(tuple(batch)), codes)
    assert torch.equal(model.encode(torch.from_numpy(batch)), codes)
    floats = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
    assert (model.encode(floats) == codes).float().mean() > 0.999
    assert (model.encode(floats.numpy().astype(np.float64)) == codes).float().mean() > 0.999
    assert torch.equal(model.encode(batch[0]), codes[:1])
    assert torch.equal(model.encode(Image.fromarray(batch[0])), codes[:1])
    paths = [tmp_path / f"{number}.png" for number in range(len(batch))]
    for path, image in zip(paths, batch, strict=True):
        Image.fromarray(image).save(path)
    assert torch.equal(model.encode(paths), codes)
    assert torch.equal(model.encode(paths[1]), codes[1:2])
    assert torch.equal(model.encode(str(paths[1])), codes[1:2])
    mixed = [
        paths[0],
        Image.fromarray(batch[1]),
        batch[2],
        torch.from_numpy(batch[3:5]),
        [str(paths[5])],
    ]
    assert torch.equal(model.encode(mixed), codes)


def test_grey_is_colour_with_three_equal_channels(model, batch, tmp_path):
    grey = batch[0].mean(2).astype(np.uint8)
    as_colour = model.encode(np.repeat(grey[:, :, None], 3, 2))
    Image.fromarray(grey).save(tmp_path / "grey.png")
    for form in (
        grey,
        grey[:, :, None],
        torch.from_numpy(grey),
        Image.fromarray(grey),
        tmp_path / "grey.png",
    ):
        assert torch.equal(model.encode(form), as_colour)
    assert torch.equal(model.encode(torch.from_numpy(grey)[None, None].float() / 255), as_colour)


def test_images_of_several_sizes_are_a_list_each_as_if_it_were_alone(model, batch):
    images = [batch[0], batch[1][:21, :30], batch[2][:16]]
    found = model.encode(images)
    assert [tuple(one.shape) for one in found] == [(1, 8, 8), (1, 6, 8), (1, 4, 8)]
    for one, image in zip(found, images, strict=True):
        assert torch.equal(one[None], model.encode(image))
    back = model.reconstruct(images)
    assert [one.shape for one in back] == [image.shape for image in images]


def test_reconstruct_returns_what_it_was_given(model, batch, tmp_path):
    arrays = model.reconstruct(batch)
    assert arrays.dtype == np.uint8 and arrays.shape == batch.shape
    assert np.array_equal(arrays, model.decode(model.encode(batch)))
    images = model.reconstruct([Image.fromarray(image) for image in batch])
    assert all(
        np.array_equal(np.asarray(image), array)
        for image, array in zip(images, arrays, strict=True)
    )
    floats = model.reconstruct(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255)
    assert floats.shape == (6, 3, 32, 32) and 0 <= float(floats.min()) and float(floats.max()) <= 1
    assert model.reconstruct(batch[0]).shape == batch[0].shape
    Image.fromarray(batch[0]).save(tmp_path / "x.png")
    assert np.array_equal(
        np.asarray(model.reconstruct(tmp_path / "x.png")), model.reconstruct(batch[0])
    )


def test_any_size_and_mode_of_image(model, photo):
    with Image.open(photo) as image:
        for mode in ("RGB", "L", "RGBA", "P", "CMYK"):
            converted = image.convert(mode).resize((61, 37))
            assert model.reconstruct(converted).size == (61, 37)


def test_large_batches_are_cut_and_change_nothing(model, emoji, monkeypatch):
    images = emoji.read(emoji.splits["validation"][:20]).values.permute(0, 2, 3, 1).numpy()
    codes = model.encode(images)
    pixels = model.reconstruct(images)
    monkeypatch.setattr(tokenizer, "BATCH_VALUES", 3 * 32 * 32 * 3)
    assert (model.encode(images) == codes).float().mean() > 0.999
    assert (np.abs(model.reconstruct(images).astype(int) - pixels) <= 1).mean() > 0.99


def test_reconstructions_explain_most_of_unseen_images(model, emoji):
    images = emoji.read(emoji.splits["test"]).values.permute(0, 2, 3, 1).contiguous().numpy()
    error = np.square(model.reconstruct(images).astype(float) - images).mean()
    assert error < 0.35 * np.square(images.mean((1, 2), keepdims=True) - images).mean()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 2, 4, 4), np.float32), "3 channels"),
        (np.zeros((2, 3, 4, 4), np.float32) + 2, r"lie in \[0, 1\]"),
        (np.full((2, 3, 4, 4), np.nan, np.float32), r"lie in \[0, 1\]"),
        (np.zeros((4, 4, 3), np.int64), "uint8"),
        (np.zeros((4, 4, 7), np.uint8), "1 to 4 channels"),
        (7, "not int"),
        ([None], "not NoneType"),
        ({"image": 1}, "not dict"),
    ],
)
def test_wrong_images_are_refused_in_words(model, images, message):
    with pytest.raises(ValueError, match=message) as caught:
        model.encode(images)
    assert "\n" not in str(caught.value)


def test_a_path_that_holds_no_image_is_named(model, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    for path in (tmp_path / "broken.png", tmp_path / "missing.png"):
        with pytest.raises(VqkitError, match=path.name) as caught:
            model.encode([path])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "images",
    [
        *[np.zeros(shape, np.uint8) for shape in ((0, 8, 8, 3), (0, 8, 3), (8, 0, 3), (0, 0))],
        *[np.zeros((0, 3, 8, 8), np.float32), torch.zeros(1, 3, 0, 8), Image.new("RGB", (0, 8))],
    ],
)
def test_no_pixels_are_refused_in_words_by_all_that_take_images(model, images):
    for use in (model.encode, model.reconstruct, model.compress):
        with pytest.raises(ValueError, match="no pixels"):
            use(images)
    with pytest.raises(ValueError, match="no images"):
        model.encode([])


# -------------------------------------------------------------------------------------------- codes


def test_wrong_codes_are_refused_in_words(model):
    for shape in ((0, 1, 8, 8), (1, 1, 0, 8), (8, 8)):
        with pytest.raises(ValueError, match=r"codes must be \(B, 1, grid, grid\)"):
            model.decode(torch.zeros(shape, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\[0, 64\)"):
        model.decode(torch.full((1, 1, 8, 8), 64))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool]
)
def test_codes_that_are_no_whole_numbers_are_one_sentence(model, codes, dtype):
    with pytest.raises(ValueError, match=f"whole numbers .* not {dtype}"):
        model.decode(codes.to(dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_codes_of_any_whole_numbers_are_the_same_codes(model, codes, dtype):
    assert np.array_equal(model.decode(codes.to(dtype)), model.decode(codes))
    assert np.array_equal(model.decode(codes.numpy()), model.decode(codes))


def test_other_precisions_are_one_sentence(model):
    for name in ("half", "bfloat16"):
        with pytest.raises(VqkitError, match=rf"float32.*leave \.{name}\(\) out$"):
            getattr(model, name)()


@pytest.mark.parametrize(
    ("quantizer", "number"),
    [
        ({"kind": "lfq", "bits": 33}, "33.0"),
        ({"kind": "bsq", "bits": 40}, "40.0"),
        ({"kind": "fsq", "levels": [256] * 5}, "40.0"),
    ],
)
def test_codes_that_a_file_has_no_numbers_for_are_refused_before_it_is_written(quantizer, number):
    model = untrained(quantizer=quantizer)
    image = np.zeros((16, 16, 3), np.uint8)
    assert model.encode(image).shape == (1, 1, 8, 8)
    with pytest.raises(VqkitError, match=rf"2\^{number} codes.* 2\^32.*--lossless"):
        model.compress(image)
    assert np.array_equal(model.decompress(model.compress(image, lossless=True)), image)
    smaller = untrained(quantizer={"kind": "lfq", "bits": 32})
    assert smaller.decompress(smaller.compress(image)).shape == image.shape


def test_codes_are_checked_against_their_own_codebook_and_stages_may_be_left_out(residual):
    codes = residual.encode(np.zeros((1, 32, 32, 3), np.uint8))
    shorter = codes.clone()
    shorter[:, 1:] = -1
    assert residual.decode(shorter).shape == residual.decode(codes).shape == (1, 32, 32, 3)
    codes[0, 2, 0, 0] = 8
    with pytest.raises(ValueError, match=r"codebook 2 must lie in \[0, 8\)"):
        residual.decode(codes)


# --------------------------------------------------------------------------- looks, devices, copies


def test_it_is_shown_in_a_few_lines_and_as_a_table(model, residual):
    for one in (model, residual, untrained()):
        lines = repr(one).splitlines()
        assert len(lines) <= 10 and max(map(len, lines)) <= 120
        assert one.content_id[:16] in repr(one)
        assert re.fullmatch(r"<table>.*</table>", one._repr_html_())
        assert one._repr_html_().count("<tr>") == len(lines) - 1
    assert "vq, codebooks: 1" in repr(model) and "residual, codebooks: 3" in repr(residual)
    # A name and what it says are never one word.
    assert all(re.match(r"  [a-z ]*[a-z] +\S", line) for line in repr(model).splitlines()[1:])
    assert "trained on emoji" in re.sub(" +", " ", repr(model))


def test_what_others_wrote_is_escaped_where_a_model_is_shown():
    model = untrained()
    model.artifact.data["name"] = "<script>alert(1)</script>\x1b[2J\n"
    assert "<script>" not in model._repr_html_()
    assert "\x1b" not in repr(model) and len(repr(model).splitlines()) <= 10


@pytest.mark.parametrize(
    "name",
    ["gpu", "cuda:99", "cuda:-1", "mps:7", "meta", "xpu", "", "cpu:1:2", None, 3.5, "cuda:x"],
)
def test_a_device_that_is_not_there_is_one_sentence(run_folder, model, name):
    for call in (
        lambda: vqkit.load(run_folder, device=name),
        lambda: model.to(name),
        lambda: resolve_device(name),
    ):
        with pytest.raises(VqkitError, match="device") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_devices_that_are_there(run_folder, model):
    assert model.to("cpu") is model and model.to(torch.device("cpu")) is model
    there = "cuda" if torch.cuda.is_available() else "cpu"
    assert vqkit.load(run_folder).device.type == there


def test_moving_a_model_moves_nothing_in_place(model, batch, codes, monkeypatch):
    """The device `meta` stands in for an accelerator: it has tensors without values."""
    monkeypatch.setattr("vqkit.artifact.model.resolve_device", torch.device)
    monkeypatch.setattr("vqkit.artifact.tokenizer.resolve_device", torch.device)
    moved = model.to("meta")
    assert moved is not model and moved.device.type == "meta"
    assert {value.device.type for value in moved.network.state_dict().values()} == {"meta"}
    assert {value.device.type for value in model.network.state_dict().values()} == {"cpu"}
    assert {value.device.type for value in model.artifact.network.state_dict().values()} == {"cpu"}
    assert moved.artifact is model.artifact and torch.equal(model.encode(batch), codes)


def test_copies_and_threads_are_exact(model, batch, codes):
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.content_id == model.content_id
        assert torch.equal(twin.encode(batch), codes)
        assert twin.compress(batch[0]) == model.compress(batch[0])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(model.encode, [batch] * 8):
            assert torch.equal(found, codes)


def test_every_public_name_is_there_and_formats_have_their_error():
    assert all(getattr(vqkit, name) for name in vqkit.__all__)
    assert issubclass(vqkit.FormatError, vqkit.VqkitError)
