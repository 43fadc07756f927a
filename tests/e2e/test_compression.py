"""Images through .vq files and back, by the real entry point and from Python, on the tiny emoji
model.
"""

import io
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import vqkit
from vqkit import cli
from vqkit.apps import compress as app
from vqkit.artifact import codec as codecs
from vqkit.artifact import compressor
from vqkit.artifact.coder_files import save_coders
from vqkit.cli.compression import MAX_STEM
from vqkit.coding import (
    Block,
    Bundle,
    BundleHeader,
    CorruptCodes,
    Extents,
    FormatError,
    WrongModel,
    codes_crc,
    describe,
    read_file,
    write_bundle,
)
from vqkit.errors import VqkitError


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, emoji):
    """A folder of five emoji, one of them cut to another size, with a name beyond ASCII."""
    folder = tmp_path_factory.mktemp("images")
    images = emoji.read(emoji.splits["test"][:5]).values.permute(0, 2, 3, 1).numpy()
    for name, image in zip(("a", "b", "c", "Äpfel 🍎"), images, strict=False):
        Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(images[4][:21, :30]).save(folder / "odd.png")
    return folder


def codes_of(model, data):
    return [one.codes for one in model.compressor.read(data)]


def decibels(one, other):
    return 10 * np.log10(255**2 / np.square(one.astype(float) - other).mean())


def test_a_file_gives_the_codes_that_the_model_makes(model, pictures):
    for path in sorted(pictures.iterdir()):
        image = Image.open(path).convert("RGB")
        data = model.compress(image)
        (found,) = model.compressor.read(data)
        assert np.array_equal(found.codes, model.encode(image)[0].numpy())
        assert found.extent == (image.height, image.width)
        expected = model.decode(model.encode(image), found.extent, double=True)[0]
        assert np.array_equal(model.decompress(data), expected)
        assert np.array_equal(model.decompress(io.BytesIO(data)), expected)


def test_training_leaves_a_coder_that_beats_fixed_length_codes(model):
    assert model.metrics["coder_bits_per_code"] < np.log2(64)


def test_files_and_bundles_from_the_command_line(
    run_folder, model, pictures, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_folder, "runs/tiny")
    assert cli.main(["compress", "runs/tiny", str(pictures), "--out-dir", "vq"]) == 0
    assert cli.main(["compress", "runs/tiny", str(pictures), "--bundle", "--out", "all.vq"]) == 0
    files = sorted((tmp_path / "vq").iterdir())
    assert [path.stem for path in files] == ["a", "b", "c", "odd", "Äpfel 🍎"]
    total = sum(path.stat().st_size for path in files)
    assert (
        f"{total} bytes" in capsys.readouterr().out and (tmp_path / "all.vq").stat().st_size < total
    )
    assert cli.main(["verify", *map(str, files), "all.vq"]) == 0
    assert (
        cli.main(["decompress", *map(str, files), "--model", "runs/tiny", "--out-dir", "one"]) == 0
    )
    assert cli.main(["decompress", "all.vq", "--out-dir", "two"]) == 0, (
        "the model is found below this folder"
    )
    for path in sorted(pictures.iterdir()):
        with (
            Image.open(path) as image,
            Image.open(f"one/{path.name}") as one,
            Image.open(f"two/{path.name}") as two,
        ):
            assert one.size == image.size and np.array_equal(one, two)
            assert np.array_equal(one, model.decompress(model.compress(image)))
    capsys.readouterr()
    assert cli.main(["inspect", "all.vq"]) == 0
    shown = capsys.readouterr().out
    pixels = describe((tmp_path / "all.vq").read_bytes()).positions
    bpp = 8 * (tmp_path / "all.vq").stat().st_size / pixels
    assert model.compressor.model_id.hex() in shown and f"{bpp:.4f}" in shown


def bundled(model, folder, target):
    """The bundle that the command makes of a folder: bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vqkit.cli.arguments.load_model", lambda *_: model)
        cli.main(["compress", "model", str(folder), "--bundle", "--out", str(target), "--force"])
    return target.read_bytes()


def test_many_pictures_at_once_are_each_as_if_they_were_alone(
    model, emoji, tmp_path, monkeypatch, capsys
):
    """Of two sizes in turn, one of them unreadable, in parts of five: rows in order, the same
    codes, the right PSNR.
    """
    monkeypatch.setattr(app, "BLOCK", 5)
    (tmp_path / "in").mkdir()
    images = emoji.read(emoji.splits["test"][:12]).values.permute(0, 2, 3, 1).numpy()
    originals = {
        f"{number:02}.png": image[: 32 - 7 * (number % 2)] for number, image in enumerate(images)
    }
    for name, image in originals.items():
        Image.fromarray(image).save(tmp_path / "in" / name)
    (tmp_path / "in" / "05.png").write_bytes(b"")
    del originals["05.png"]
    monkeypatch.setattr("vqkit.cli.arguments.load_model", lambda *_: model)
    assert (
        cli.main(["compress", "model", str(tmp_path / "in"), "--out-dir", str(tmp_path / "vq")])
        == 1
    )
    said = capsys.readouterr()
    assert said.err.count("skipped") == 1 and "05.png" in said.err
    rows = said.out.splitlines()[:-1]
    assert [row.split(" -> ")[0] for row in rows] == [
        str(tmp_path / "in" / name) for name in originals
    ]
    items = model.compressor.read(bundled(model, tmp_path / "in", tmp_path / "all.vq"))
    for row, (name, image) in zip(rows, originals.items(), strict=True):
        data = (tmp_path / "vq" / name).with_suffix(".vq").read_bytes()
        assert data == model.compress(image, name)
        psnr = decibels(model.decompress(data), image)
        pixels = image.shape[0] * image.shape[1]
        numbers = row.split(".vq: ")[1]
        assert (
            numbers
            == f"{len(data)} bytes, {8 * len(data) / pixels:.3f} bits per position, {psnr:.2f} dB"
        )
        found = next(items)
        assert found.name == name and found.extent == image.shape[:2]
        assert np.array_equal(found.codes, model.encode(image)[0])
    assert next(items, None) is None


def test_what_is_written_can_be_read_however_large_the_pictures(
    model, emoji, tmp_path, monkeypatch, capsys
):
    """No more than 200 codes at once: blocks of three images of 64, and an image of 256 is refused,
    not written.
    """
    monkeypatch.setattr(codecs, "MAX_DECODED", 200)
    images = emoji.read(emoji.splits["test"][:7]).values.permute(0, 2, 3, 1).numpy()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    large = np.tile(images[0], (2, 2, 1))
    Image.fromarray(large).save(tmp_path / "large.png")
    data = bundled(model, tmp_path, tmp_path / "all.vq")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "200 positions" in said[0] and "large.png" in said[0]
    assert Bundle(data).header.block_size == 3
    assert np.array_equal(codes_of(model, data), model.encode(images))
    with pytest.raises(VqkitError, match="200 positions"):
        model.compress(large)


def test_bytes_streams_and_paths_are_read_alike_and_nothing_else_is(model, pictures, tmp_path):
    data = model.compress(Image.open(pictures / "a.png"))
    path = tmp_path / "Bär 🐻.vq"
    path.write_bytes(data)
    expected = model.decompress(data)
    with open(path, "rb") as stream:
        for source in (stream, io.BytesIO(data), path, str(path)):
            assert np.array_equal(model.decompress(source), expected)
        assert not stream.closed
    reading, writing = os.pipe()
    os.close(writing)
    with open(path, encoding="latin-1") as text, open(reading, "rb") as pipe:
        for source in (text, pipe, io.StringIO("x"), 7, None, bytearray(data)):
            with pytest.raises(ValueError, match="bytes, as a path, or as a binary stream"):
                model.decompress(source)
    for missing in (tmp_path / "missing.vq", tmp_path, path / "x.vq"):
        with pytest.raises(VqkitError, match="cannot read"):
            model.decompress(missing)
    with pytest.raises(FormatError, match="empty"):
        model.decompress(b"")


def test_what_cannot_be_read_or_written_is_named_and_fails(
    run_folder, pictures, tmp_path, monkeypatch, capsys
):
    """In ways that not even the superuser gets around: folders and files in each other's place."""
    monkeypatch.chdir(tmp_path)
    picture, model = str(pictures / "a.png"), str(run_folder)
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.vq").mkdir()
    assert cli.main(["compress", model, picture, "--out", "x.vq"]) == 0
    capsys.readouterr()
    for command, status, message in (
        (["compress", model, picture, "--out-dir", "file"], 2, "cannot write file/a.vq"),
        (["compress", model, picture, "--out", "file/x.vq"], 2, "cannot write file/x.vq"),
        (
            ["compress", model, picture, "--out", "folder.vq", "--force"],
            2,
            "cannot write folder.vq",
        ),
        (
            ["compress", model, picture, "--bundle", "--out", "file/x.vq"],
            2,
            "cannot write file/x.vq",
        ),
        (["compress", model, "empty.png", "--out", "y.vq"], 1, "cannot read empty.png"),
        (["compress", model, "empty.png", "--bundle", "--out", "y.vq"], 2, "nothing was written"),
        (
            ["decompress", "x.vq", "--model", model, "--out-dir", "file"],
            1,
            "cannot write file/a.png",
        ),
        (
            ["decompress", "folder.vq", "--model", model, "--out-dir", "out"],
            1,
            "cannot read folder.vq",
        ),
        (["decompress", "file/x.vq", "--out-dir", "out"], 1, "cannot read file/x.vq"),
        (["inspect", "folder.vq"], 2, "cannot read folder.vq"),
    ):
        assert cli.main(command) == status, command
        assert message in capsys.readouterr().err, command
    assert cli.main(["verify", "folder.vq", "--model", model]) == 1
    assert "cannot read folder.vq" in capsys.readouterr().out
    left = sorted(path.name for path in tmp_path.rglob("*"))
    assert (
        left == ["empty.png", "file", "folder.vq", "x.vq"]
        and (tmp_path / "file").read_bytes() == b"mine"
    )


def test_nothing_is_overwritten_without_force(run_folder, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.vq").write_bytes(b"mine")
    command = ["compress", str(run_folder), str(pictures / "a.png"), "--out", "x.vq"]
    assert cli.main(command) == 2 and (tmp_path / "x.vq").read_bytes() == b"mine"
    assert "--force" in capsys.readouterr().err
    assert cli.main([*command, "--force"]) == 0 and (tmp_path / "x.vq").read_bytes() != b"mine"
    for _ in range(2):
        assert cli.main(["decompress", "x.vq", "--model", str(run_folder), "--out-dir", "out"]) == 0
    assert sorted(os.listdir("out")) == ["a-2.png", "a.png"]


def test_pictures_of_one_name_do_not_replace_each_other_even_with_force(
    run_folder, pictures, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for folder, name in (("one", "a"), ("two", "b")):
        (tmp_path / folder).mkdir()
        shutil.copy(pictures / f"{name}.png", tmp_path / folder / "same.png")
    command = ["compress", str(run_folder), "one", "two", "--force"]
    assert cli.main([*command, "--out-dir", "vq"]) == 0 and len(os.listdir("vq")) == 2
    assert cli.main([*command, "--bundle", "--out", "x.vq"]) == 0
    assert (
        cli.main(["decompress", "x.vq", "--model", str(run_folder), "--out-dir", "out", "--force"])
        == 0
    )
    assert len(os.listdir("out")) == 2


def test_with_force_the_same_names_come_out_each_time(run_folder, pictures, tmp_path):
    for name in ("a.png", "a.jpg"):
        Image.open(pictures / "a.png").save(tmp_path / name)
    files = [str(tmp_path / "a.png"), str(tmp_path / "a.jpg")]
    compress = ["compress", str(run_folder), *files, "--force"]
    bundle, out = str(tmp_path / "all.vq"), str(tmp_path / "out")
    assert cli.main([*compress, "--bundle", "--out", bundle]) == 0
    for _ in range(3):
        assert cli.main([*compress, "--out-dir", str(tmp_path / "vq")]) == 0
        assert (
            cli.main(
                ["decompress", bundle, "--model", str(run_folder), "--out-dir", out, "--force"]
            )
            == 0
        )
    assert sorted(os.listdir(tmp_path / "vq")) == ["a-2.vq", "a.vq"]
    assert sorted(os.listdir(out)) == ["a-2.png", "a.png"]


def test_images_of_a_bundle_come_back_without_their_names_and_that_is_said(
    run_folder, model, pictures, tmp_path
):
    cli.main(
        ["compress", str(run_folder), str(pictures), "--bundle", "--out", str(tmp_path / "x.vq")]
    )
    damaged = bytearray((tmp_path / "x.vq").read_bytes())
    damaged[-1] ^= 1  # of the names' own check sum
    found = model.compressor.read(bytes(damaged))
    assert [next(found).name for _ in range(5)] == [None] * 5
    with pytest.raises(FormatError, match="names"):
        next(found)


@pytest.fixture
def bundle(model, pictures, tmp_path, monkeypatch):
    """The five images in blocks of two, two and one: bytes."""
    monkeypatch.setattr(compressor, "BLOCK", 2)
    return bundled(model, pictures, tmp_path / "x.vq")


def damage(data, *blocks):
    """With a wrong bit in the check sums of blocks."""
    changed = bytearray(data)
    for number in blocks:
        changed[Bundle(data).span(number)[0]] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("blocks", "left", "words"),
    [
        ((0,), [2, 3, 4], "block 1 is corrupt.*items 0 to 1,"),
        ((1,), [0, 1, 4], "block 2 is corrupt.*items 2 to 3,"),
        ((0, 2), [2, 3], "block 1 is corrupt.*items 0 to 1, 4,"),
        ((1, 2), [0, 1], "block 2 is corrupt.*items 2 to 4,"),
        ((0, 1, 2), [], "block 1 is corrupt.*items 0 to 4,"),
    ],
)
def test_a_damaged_block_takes_no_other_images_with_it(model, bundle, blocks, left, words):
    whole = list(model.compressor.read(bundle))
    found = []
    with pytest.raises(CorruptCodes, match=words):
        for one in model.compressor.read(damage(bundle, *blocks)):
            found.append(one)
    assert [one.number for one in found] == left
    for one in found:
        assert one.name == whole[one.number].name and np.array_equal(
            one.codes, whole[one.number].codes
        )


def test_damage_and_a_cut_are_said_together(
    run_folder, model, bundle, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.vq").write_bytes(damage(bundle, 0)[: Bundle(bundle).span(2)[1] - 1])
    for command in (["verify", "x.vq"], ["decompress", "x.vq", "--out-dir", "out"]):
        assert cli.main([*command, "--model", str(run_folder)]) == 1
        said = "".join(capsys.readouterr())
        assert (
            "items 0 to 1, counted from 0; the bundle is cut off: its last 1 items are lost" in said
        )
        assert said.count("BAD" if command[0] == "verify" else "but this item is complete") in (
            1,
            2,
        )
    assert sorted(os.listdir("out")) == ["x-2.png", "x-3.png"], (
        "numbers are those of the whole bundle"
    )


def test_one_image_of_a_bundle_comes_without_the_others(
    run_folder, model, bundle, pictures, tmp_path, capsys
):
    """Although another block is damaged, and by number as by name."""
    (tmp_path / "x.vq").write_bytes(damage(bundle, 0))
    command = [
        "decompress",
        str(tmp_path / "x.vq"),
        "--model",
        str(run_folder),
        "--out-dir",
        str(tmp_path / "out"),
    ]
    for item, name in (("2", "c"), ("odd.png", "odd"), ("4", "Äpfel 🍎")):
        assert cli.main([*command, "--item", item]) == 0
        with (
            Image.open(tmp_path / "out" / f"{name}.png") as found,
            Image.open(pictures / f"{name}.png") as image,
        ):
            assert np.array_equal(found, model.decompress(model.compress(image)))
    assert len(os.listdir(tmp_path / "out")) == 3
    capsys.readouterr()
    for item, words in (
        ("1", "block 1 is corrupt"),
        ("5", "numbers 0 to 4"),
        ("-1", "0 to 4"),
        ("b", "no item 'b'"),
    ):
        assert cli.main([*command, f"--item={item}"]) == 1
        assert words in capsys.readouterr().err
    (tmp_path / "x.vq").write_bytes(model.compress(Image.open(pictures / "a.png"), "a.png"))
    assert cli.main([*command, "--item", "0"]) == cli.main([*command, "--item", "a.png"]) == 0
    assert cli.main([*command, "--item", "1"]) == 1


def test_names_that_are_too_long_for_a_file_are_replaced_by_numbers(
    run_folder, model, pictures, tmp_path
):
    """The format allows 1,024 bytes, file systems 255."""
    codec = model.compressor.codec()
    (values,) = model.to_values(pictures / "a.png")
    coded = model.compressor.code(torch.stack([values] * 3), codec)
    header = BundleHeader(
        Extents([coded[0].extent] * 3), codec.num_stages, codec.coder, codec.model_id
    )
    crc = codes_crc(np.stack([one.codes for one in coded]), 0)
    names = ["ü" * 400 + ".png", "x" * 250 + ".png", "ok.png"]
    data = write_bundle(header, [Block(crc, tuple(one.payloads for one in coded))], names)
    (tmp_path / "many.vq").write_bytes(data)
    where = ["--model", str(run_folder), "--out-dir", str(tmp_path / "out")]
    assert cli.main(["decompress", str(tmp_path / "many.vq"), *where]) == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["many-1.png", "many.png", "ok.png"]
    longest = "z" * MAX_STEM + ".png"
    (tmp_path / "one.vq").write_bytes(model.compress(Image.open(pictures / "a.png"), longest))
    assert cli.main(["decompress", str(tmp_path / "one.vq"), *where]) == 0
    assert (tmp_path / "out" / longest).exists()


def test_what_is_wrong_is_said_and_fails(
    run_folder, model, residual, pictures, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = model.compress(Image.open(pictures / "a.png"))
    damaged = bytearray(data)
    damaged[22] ^= 1  # of the check sum: behind 20 bytes of header, tag and length
    bad = {
        "empty.vq": (b"", "empty"),
        "image.vq": ((pictures / "a.png").read_bytes(), "not a .vq file"),
        "damaged.vq": (bytes(damaged), "corrupt"),
        "cut.vq": (data[:-1], "cut off"),
        "more.vq": (data + b"\0", "no section"),
    }
    for name, (content, message) in bad.items():
        (tmp_path / name).write_bytes(content)
        assert cli.main(["verify", name, "--model", str(run_folder)]) == 1
        assert message in capsys.readouterr().out
        assert cli.main(["decompress", name, "--model", str(run_folder), "--out-dir", "out"]) == 1
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
    with pytest.raises(CorruptCodes):
        model.decompress(bytes(damaged))
    with pytest.raises(WrongModel):
        residual.decompress(data)
    assert cli.main(["decompress", "damaged.vq", "--out-dir", "out"]) == 1
    assert "--model DIR" in capsys.readouterr().err, "no model lies below this folder"
    (tmp_path / "whole.vq").write_bytes(data)
    assert cli.main(["verify", "whole.vq", "cut.vq"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "not checked, the model of whole.vq" in said[0] and "BAD" in said[1]
    assert cli.main(["compress", str(run_folder), "missing.png", "--out-dir", "out"]) in (1, 2)
    assert cli.main(["compress", str(run_folder), str(pictures), "--out", "one.vq"]) == 2
    assert "--bundle" in capsys.readouterr().err and not (tmp_path / "one.vq").exists()


def test_a_file_that_is_cut_off_gives_a_coarser_picture_of_a_residual_model(
    residual, residual_folder, pictures, tmp_path, capsys
):
    image = Image.open(pictures / "b.png")
    data, codes = residual.compress(image), residual.encode(image).clone()
    assert len(read_file(data).stages) == codes.shape[1] > 1
    codes[:, -1] = -1
    with pytest.warns(UserWarning, match="coarser"):
        found = residual.decompress(data[:-1])
    (tmp_path / "cut.vq").write_bytes(data[:-1])
    command = [
        "decompress",
        str(tmp_path / "cut.vq"),
        "--model",
        str(residual_folder),
        "--out-dir",
        str(tmp_path),
    ]
    assert cli.main(command) == 1
    assert "the file is cut off, coarser than it was" in capsys.readouterr().out
    assert np.array_equal(
        found, residual.decode(codes, (image.height, image.width), double=True)[0]
    )


@pytest.mark.filterwarnings("ignore:the file is cut off")
def test_every_mutation_is_refused_or_gives_the_same_picture(model, pictures):
    """All single bits of a file, through the whole decoder."""
    data = model.compress(Image.open(pictures / "c.png"))
    expected = model.decompress(data)
    for position in range(8 * len(data)):
        mutated = bytearray(data)
        mutated[position // 8] ^= 1 << position % 8
        try:
            found = model.decompress(bytes(mutated))
        except FormatError:
            continue
        assert np.array_equal(found, expected), position


def test_a_new_coder_leaves_the_old_one_for_its_files(
    run_folder, pictures, hundred_images, tmp_path, capsys, monkeypatch
):
    folder, image = tmp_path / "copy", Image.open(pictures / "a.png")
    shutil.copytree(run_folder, folder)
    before = vqkit.load(folder)
    command = ["train-coder", str(folder), str(hundred_images), "--steps", "3"]
    files = [before.compress(image, lossless=lossless) for lossless in (False, True)]
    assert cli.main(command) == 2 and "has a coder; add --force" in capsys.readouterr().err
    assert vqkit.load(folder).compressor.model_id == before.compressor.model_id
    assert cli.main([*command, "--force"]) == 0
    after = vqkit.load(folder)
    assert (
        after.compressor.model_id != before.compressor.model_id
        and (folder / f"coder-{before.compressor.model_id.hex()}.safetensors").exists()
    )
    for number, data in enumerate(
        (*files, after.compress(image), after.compress(image, lossless=True))
    ):
        (tmp_path / f"{number}.vq").write_bytes(data)
        assert np.array_equal(
            after.decompress(data), (before if number < 2 else after).decompress(data)
        )
    assert files[0] != after.compress(image)
    with pytest.raises(WrongModel):
        before.decompress(after.compress(image))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["verify", "0.vq", "1.vq", "2.vq", "3.vq"]) == 0


def test_a_coder_of_another_model_is_refused(run_folder, residual, tmp_path):
    shutil.copytree(run_folder, tmp_path / "copy")
    save_coders(residual.artifact, tmp_path / "copy")
    with pytest.warns(UserWarning, match="another model"):
        model = vqkit.load(tmp_path / "copy")
    assert model.artifact.coders.codes is None and model.artifact.coders.rates == {}
    image = np.zeros((32, 32, 3), np.uint8)
    assert np.array_equal(
        model.decompress(model.compress(image)), model.decode(model.encode(image), double=True)[0]
    )
    for path in (tmp_path / "copy").glob("coder*.safetensors"):
        path.unlink()
    for path in (tmp_path / "copy").glob("lossless*.safetensors"):
        path.unlink()
    with pytest.raises(VqkitError, match="train-coder"):
        vqkit.load(tmp_path / "copy").compress(image, rate="full")
