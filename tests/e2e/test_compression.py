"""Pictures through .vq files and back, by the real entry point and from Python, on the tiny emoji model."""

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import vqkit
from tests.conftest import RESIDUAL, TINY
from vqkit import cli
from vqkit.apps.compress import MAX_STEM, _coded, compress, decode, decompress
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
from vqkit.metrics import picture_psnr


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, emoji):
    """A folder of five emoji, one of them cut to another size, with a name beyond ASCII."""
    folder = tmp_path_factory.mktemp("pictures")
    images = emoji.read(emoji.splits["test"][:5]).permute(0, 2, 3, 1).numpy()
    for name, image in zip(("a", "b", "c", "Äpfel 🍎"), images, strict=False):
        Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(images[4][:21, :30]).save(folder / "odd.png")
    return folder


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("residual") / "model"
    tiny = [word for word in TINY if "quantizer" not in word]
    return vqkit.train("emoji", folder, "emoji", [*RESIDUAL, *tiny, "train.steps=10", "coder.steps=5"])


def test_a_file_gives_the_codes_that_the_model_makes(artifact, pictures):
    for path in sorted(pictures.iterdir()):
        image = Image.open(path).convert("RGB")
        data = artifact.compress(image)
        (found,) = decode(artifact, data)
        assert np.array_equal(found.codes, artifact.encode(image)[0].numpy())
        assert found.size == (image.height, image.width)
        expected = artifact.decode(artifact.encode(image), found.size, exact=True)[0]
        assert np.array_equal(artifact.decompress(data), expected)
        assert np.array_equal(artifact.decompress(io.BytesIO(data)), expected)


def test_training_leaves_a_coder_that_beats_fixed_length_codes(artifact):
    assert artifact.metrics["coder_bits_per_code"] < np.log2(64)


def test_files_and_bundles_from_the_command_line(run_folder, artifact, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_folder, "runs/tiny")
    assert cli.main(["compress", "runs/tiny", str(pictures), "--out-dir", "vq"]) == 0
    assert cli.main(["compress", "runs/tiny", str(pictures), "--bundle", "--out", "all.vq"]) == 0
    files = sorted((tmp_path / "vq").iterdir())
    assert [path.stem for path in files] == ["a", "b", "c", "odd", "Äpfel 🍎"]
    total = sum(path.stat().st_size for path in files)
    assert f"{total} bytes" in capsys.readouterr().out and (tmp_path / "all.vq").stat().st_size < total
    assert cli.main(["verify", *map(str, files), "all.vq"]) == 0
    assert cli.main(["decompress", *map(str, files), "--model", "runs/tiny", "--out-dir", "one"]) == 0
    assert cli.main(["decompress", "all.vq", "--out-dir", "two"]) == 0, "the model is found below this folder"
    for path in sorted(pictures.iterdir()):
        with Image.open(path) as image, Image.open(f"one/{path.name}") as one, Image.open(f"two/{path.name}") as two:
            assert one.size == image.size and np.array_equal(one, two)
            assert np.array_equal(one, artifact.decompress(artifact.compress(image)))
    capsys.readouterr()
    assert cli.main(["inspect", "all.vq"]) == 0
    shown = capsys.readouterr().out
    pixels = describe((tmp_path / "all.vq").read_bytes()).positions
    bpp = 8 * (tmp_path / "all.vq").stat().st_size / pixels
    assert artifact.coding_id.hex() in shown and f"{bpp:.4f}" in shown


def test_many_pictures_at_once_are_each_as_if_they_were_alone(artifact, emoji, tmp_path, monkeypatch):
    """Of two sizes in turn, one of them unreadable, in parts of five: rows in order, the same codes, the right PSNR."""
    monkeypatch.setattr("vqkit.apps.compress.BLOCK", 5)
    (tmp_path / "in").mkdir()
    images = emoji.read(emoji.splits["test"][:12]).permute(0, 2, 3, 1).numpy()
    originals = {f"{number:02}.png": image[: 32 - 7 * (number % 2)] for number, image in enumerate(images)}
    for name, image in originals.items():
        Image.fromarray(image).save(tmp_path / "in" / name)
    (tmp_path / "in" / "05.png").write_bytes(b"")
    rows = list(compress(artifact, [tmp_path / "in"], folder=tmp_path / "vq"))
    assert [row.source.name for row in rows] == sorted(originals)
    assert [row.source.name for row in rows if row.error] == ["05.png"]
    list(compress(artifact, [tmp_path / "in"], target=tmp_path / "all.vq", bundle=True))
    bundled = iter(decode(artifact, (tmp_path / "all.vq").read_bytes()))
    for row in rows[:5] + rows[6:]:
        image = originals[row.source.name]
        assert row.target.read_bytes() == artifact.compress(image, row.source.name)
        assert row.size == row.target.stat().st_size and row.pixels == image.shape[0] * image.shape[1]
        assert row.psnr == pytest.approx(picture_psnr(artifact.decompress(row.target), image), abs=0.01)
        found = next(bundled)
        assert found.name == row.source.name and found.size == image.shape[:2]
        assert np.array_equal(found.codes, artifact.encode(image)[0])
    assert next(bundled, None) is None


def test_what_is_written_can_be_read_however_large_the_pictures(artifact, emoji, tmp_path, monkeypatch):
    """No more than 200 codes at once: blocks of three pictures of 64, and a picture of 256 is refused, not written."""
    for module in ("vqkit.codec", "vqkit.apps.compress"):
        monkeypatch.setattr(f"{module}.MAX_DECODED", 200)
    images = emoji.read(emoji.splits["test"][:7]).permute(0, 2, 3, 1).numpy()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    large = np.tile(images[0], (2, 2, 1))
    Image.fromarray(large).save(tmp_path / "large.png")
    rows = list(compress(artifact, [tmp_path], target=tmp_path / "all.vq", bundle=True))
    assert [row.source.name for row in rows if row.error] == ["large.png"] and "200 codes" in rows[-1].error
    found = list(decode(artifact, (tmp_path / "all.vq").read_bytes()))
    assert Bundle((tmp_path / "all.vq").read_bytes()).header.block_size == 3
    assert np.array_equal([one.codes for one in found], artifact.encode(images))
    with pytest.raises(VqkitError, match="200 codes"):
        artifact.compress(large)


def test_bytes_streams_and_paths_are_read_alike_and_nothing_else_is(artifact, pictures, tmp_path):
    data = artifact.compress(Image.open(pictures / "a.png"))
    path = tmp_path / "Bär 🐻.vq"
    path.write_bytes(data)
    expected = artifact.decompress(data)
    with open(path, "rb") as stream:
        for source in (stream, io.BytesIO(data), path, str(path)):
            assert np.array_equal(artifact.decompress(source), expected)
        assert not stream.closed
    reading, writing = os.pipe()
    os.close(writing)
    with open(path, encoding="latin-1") as text, open(reading, "rb") as pipe:
        for source in (text, pipe, io.StringIO("x"), 7, None, bytearray(data)):
            with pytest.raises(ValueError, match="bytes, as a path, or as a binary stream"):
                artifact.decompress(source)
    for missing in (tmp_path / "missing.vq", tmp_path, path / "x.vq"):
        with pytest.raises(VqkitError, match="cannot read"):
            artifact.decompress(missing)
    with pytest.raises(FormatError, match="empty"):
        artifact.decompress(b"")


def test_what_cannot_be_read_or_written_is_named_and_fails(run_folder, pictures, tmp_path, monkeypatch, capsys):
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
        (["compress", model, picture, "--out", "folder.vq", "--force"], 2, "cannot write folder.vq"),
        (["compress", model, picture, "--bundle", "--out", "file/x.vq"], 2, "cannot write file/x.vq"),
        (["compress", model, "empty.png", "--out", "y.vq"], 1, "cannot read empty.png"),
        (["compress", model, "empty.png", "--bundle", "--out", "y.vq"], 2, "nothing was written"),
        (["decompress", "x.vq", "--model", model, "--out-dir", "file"], 1, "cannot write file/a.png"),
        (["decompress", "folder.vq", "--model", model, "--out-dir", "out"], 1, "cannot read folder.vq"),
        (["decompress", "file/x.vq", "--out-dir", "out"], 1, "cannot read file/x.vq"),
        (["inspect", "folder.vq"], 2, "cannot read folder.vq"),
    ):
        assert cli.main(command) == status, command
        assert message in capsys.readouterr().err, command
    assert cli.main(["verify", "folder.vq", "--model", model]) == 1
    assert "cannot read folder.vq" in capsys.readouterr().out
    left = sorted(path.name for path in tmp_path.rglob("*"))
    assert left == ["empty.png", "file", "folder.vq", "x.vq"] and (tmp_path / "file").read_bytes() == b"mine"


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


def test_pictures_of_one_name_do_not_replace_each_other_even_with_force(run_folder, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, name in (("one", "a"), ("two", "b")):
        (tmp_path / folder).mkdir()
        shutil.copy(pictures / f"{name}.png", tmp_path / folder / "same.png")
    command = ["compress", str(run_folder), "one", "two", "--force"]
    assert cli.main([*command, "--out-dir", "vq"]) == 0 and len(os.listdir("vq")) == 2
    assert cli.main([*command, "--bundle", "--out", "x.vq"]) == 0
    assert cli.main(["decompress", "x.vq", "--model", str(run_folder), "--out-dir", "out", "--force"]) == 0
    assert len(os.listdir("out")) == 2


def test_with_force_the_same_names_come_out_each_time(artifact, pictures, tmp_path):
    for name in ("a.png", "a.jpg"):
        Image.open(pictures / "a.png").save(tmp_path / name)
    files = [tmp_path / "a.png", tmp_path / "a.jpg"]
    list(compress(artifact, files, target=tmp_path / "all.vq", bundle=True))
    for _ in range(3):
        list(compress(artifact, files, folder=tmp_path / "vq", force=True))
        list(decompress(artifact, tmp_path / "all.vq", tmp_path / "out", force=True))
    assert sorted(os.listdir(tmp_path / "vq")) == ["a-2.vq", "a.vq"]
    assert sorted(os.listdir(tmp_path / "out")) == ["a-2.png", "a.png"]


def test_images_of_a_bundle_come_back_without_their_names_and_that_is_said(run_folder, artifact, pictures, tmp_path):
    cli.main(["compress", str(run_folder), str(pictures), "--bundle", "--out", str(tmp_path / "x.vq")])
    damaged = bytearray((tmp_path / "x.vq").read_bytes())
    damaged[-1] ^= 1  # of the names' own check sum
    found = decode(artifact, bytes(damaged))
    assert [next(found).name for _ in range(5)] == [None] * 5
    with pytest.raises(FormatError, match="names"):
        next(found)


@pytest.fixture
def bundle(artifact, pictures, tmp_path, monkeypatch):
    """The five pictures in blocks of two, two and one: bytes."""
    monkeypatch.setattr("vqkit.apps.compress.BLOCK", 2)
    list(compress(artifact, [pictures], target=tmp_path / "x.vq", bundle=True))
    return (tmp_path / "x.vq").read_bytes()


def damage(data, *blocks):
    """With a wrong bit in the check sums of blocks."""
    changed = bytearray(data)
    for number in blocks:
        changed[Bundle(data).span(number)[0]] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("blocks", "left", "words"),
    [
        ((0,), [2, 3, 4], "block 1 is corrupt.*images 0 to 1,"),
        ((1,), [0, 1, 4], "block 2 is corrupt.*images 2 to 3,"),
        ((0, 2), [2, 3], "block 1 is corrupt.*images 0 to 1, 4,"),
        ((1, 2), [0, 1], "block 2 is corrupt.*images 2 to 4,"),
        ((0, 1, 2), [], "block 1 is corrupt.*images 0 to 4,"),
    ],
)
def test_a_damaged_block_takes_no_other_images_with_it(artifact, bundle, blocks, left, words):
    whole, found = list(decode(artifact, bundle)), []
    with pytest.raises(CorruptCodes, match=words):
        for one in decode(artifact, damage(bundle, *blocks)):
            found.append(one)
    assert [one.number for one in found] == left
    for one in found:
        assert one.name == whole[one.number].name and np.array_equal(one.codes, whole[one.number].codes)


def test_damage_and_a_cut_are_said_together(run_folder, artifact, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.vq").write_bytes(damage(bundle, 0)[: Bundle(bundle).span(2)[1] - 1])
    for command in (["verify", "x.vq"], ["decompress", "x.vq", "--out-dir", "out"]):
        assert cli.main([*command, "--model", str(run_folder)]) == 1
        said = "".join(capsys.readouterr())
        assert "images 0 to 1, counted from 0; the bundle is cut off: its last 1 images are lost" in said
        assert said.count("BAD" if command[0] == "verify" else "but this image is whole") in (1, 2)
    assert sorted(os.listdir("out")) == ["x-2.png", "x-3.png"], "numbers are those of the whole bundle"


def test_one_image_of_a_bundle_comes_without_the_others(run_folder, artifact, bundle, pictures, tmp_path, capsys):
    """Although another block is damaged, and by number as by name."""
    (tmp_path / "x.vq").write_bytes(damage(bundle, 0))
    command = ["decompress", str(tmp_path / "x.vq"), "--model", str(run_folder), "--out-dir", str(tmp_path / "out")]
    for item, name in (("2", "c"), ("odd.png", "odd"), ("4", "Äpfel 🍎")):
        assert cli.main([*command, "--item", item]) == 0
        with Image.open(tmp_path / "out" / f"{name}.png") as found, Image.open(pictures / f"{name}.png") as image:
            assert np.array_equal(found, artifact.decompress(artifact.compress(image)))
    assert len(os.listdir(tmp_path / "out")) == 3
    capsys.readouterr()
    for item, words in (("1", "block 1 is corrupt"), ("5", "numbers 0 to 4"), ("-1", "0 to 4"), ("b", "no image 'b'")):
        assert cli.main([*command, f"--item={item}"]) == 1
        assert words in capsys.readouterr().err
    (tmp_path / "x.vq").write_bytes(artifact.compress(Image.open(pictures / "a.png"), "a.png"))
    assert cli.main([*command, "--item", "0"]) == cli.main([*command, "--item", "a.png"]) == 0
    assert cli.main([*command, "--item", "1"]) == 1


def test_names_that_are_too_long_for_a_file_are_replaced_by_numbers(artifact, pictures, tmp_path):
    """The format allows 1,024 bytes, file systems 255."""
    codec = artifact.codec()
    coded = _coded(artifact, codec, [np.array(Image.open(pictures / "a.png"))] * 3)
    header = BundleHeader(Extents([coded[0].size] * 3), codec.num_stages, codec.coder, codec.model_id)
    crc = codes_crc(np.stack([one.codes for one in coded]), 0)
    names = ["ü" * 400 + ".png", "x" * 250 + ".png", "ok.png"]
    data = write_bundle(header, [Block(crc, tuple(one.payloads for one in coded))], names)
    (tmp_path / "many.vq").write_bytes(data)
    written = [path.name for path, _ in decompress(artifact, tmp_path / "many.vq", tmp_path / "out")]
    assert written == ["many.png", "many-1.png", "ok.png"]
    longest = "z" * MAX_STEM + ".png"
    (tmp_path / "one.vq").write_bytes(artifact.compress(Image.open(pictures / "a.png"), longest))
    assert [path.name for path, _ in decompress(artifact, tmp_path / "one.vq", tmp_path / "out")] == [longest]


def test_what_is_wrong_is_said_and_fails(run_folder, artifact, residual, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = artifact.compress(Image.open(pictures / "a.png"))
    damaged = bytearray(data)
    damaged[22] ^= 1  # of the check sum: behind 20 bytes of header, tag and length
    bad = {
        "empty.vq": (b"", "empty"),
        "picture.vq": ((pictures / "a.png").read_bytes(), "not a .vq file"),
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
        artifact.decompress(bytes(damaged))
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


def test_a_file_that_is_cut_off_gives_a_coarser_picture_of_a_residual_model(residual, pictures, tmp_path):
    image = Image.open(pictures / "b.png")
    data, codes = residual.compress(image), residual.encode(image).clone()
    assert len(read_file(data).stages) == codes.shape[1] > 1
    codes[:, -1] = -1
    with pytest.warns(UserWarning, match="coarser"):
        found = residual.decompress(data[:-1])
    (tmp_path / "cut.vq").write_bytes(data[:-1])
    ((_, lost),) = decompress(residual, tmp_path / "cut.vq", tmp_path)
    assert lost == "the file is cut off, coarser than it was"
    assert np.array_equal(found, residual.decode(codes, (image.height, image.width), exact=True)[0])


@pytest.mark.filterwarnings("ignore:the file is cut off")
def test_every_mutation_is_refused_or_gives_the_same_picture(artifact, pictures):
    """All single bits of a file, through the whole decoder."""
    data = artifact.compress(Image.open(pictures / "c.png"))
    expected = artifact.decompress(data)
    for position in range(8 * len(data)):
        mutated = bytearray(data)
        mutated[position // 8] ^= 1 << position % 8
        try:
            found = artifact.decompress(bytes(mutated))
        except FormatError:
            continue
        assert np.array_equal(found, expected), position


def test_a_new_coder_leaves_the_old_one_for_its_files(run_folder, pictures, tmp_path, capsys, monkeypatch):
    folder, image = tmp_path / "copy", Image.open(pictures / "a.png")
    shutil.copytree(run_folder, folder)
    before, command = vqkit.load(folder), ["train-coder", str(folder), "emoji", "--steps", "3"]
    files = [before.compress(image, lossless=lossless) for lossless in (False, True)]
    assert cli.main(command) == 2 and "has a coder; add --force" in capsys.readouterr().err
    assert vqkit.load(folder).coding_id == before.coding_id
    assert cli.main([*command, "--force"]) == 0
    after = vqkit.load(folder)
    assert after.coding_id != before.coding_id and (folder / f"coder-{before.coding_id.hex()}.safetensors").exists()
    for number, data in enumerate((*files, after.compress(image), after.compress(image, lossless=True))):
        (tmp_path / f"{number}.vq").write_bytes(data)
        assert np.array_equal(after.decompress(data), (before if number < 2 else after).decompress(data))
    assert files[0] != after.compress(image)
    with pytest.raises(WrongModel):
        before.decompress(after.compress(image))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["verify", "0.vq", "1.vq", "2.vq", "3.vq"]) == 0


def test_a_coder_of_another_model_is_refused(run_folder, residual, tmp_path):
    shutil.copytree(run_folder, tmp_path / "copy")
    residual.save_coder(tmp_path / "copy")
    with pytest.raises(VqkitError, match="another model"):
        vqkit.load(tmp_path / "copy")
    for path in (tmp_path / "copy").glob("coder*.safetensors"):
        path.unlink()
    with pytest.raises(VqkitError, match="train-coder"):
        vqkit.load(tmp_path / "copy").compress(np.zeros((32, 32, 3), np.uint8))
