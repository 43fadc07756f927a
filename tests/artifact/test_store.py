"""What a folder of an artifact says when it is whole, and when anything in it is not."""

import json
import math
import os
import shutil
import socket
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import vqkit
from vqkit import cli
from vqkit.artifact.coder_files import save_coders
from vqkit.artifact.store import load_artifact, save_artifact, save_prior
from vqkit.artifact.tensor_files import SUM, write_tensors
from vqkit.errors import VqkitError


@pytest.fixture
def copy(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "copy"))


@pytest.fixture
def batch(emoji):
    """uint8 (B, H, W, C)"""
    return emoji.read(emoji.splits["test"][:6]).values.permute(0, 2, 3, 1).contiguous().numpy()


def test_saved_and_loaded_gives_the_same_codes_and_id(model, batch, tmp_path):
    save_artifact(model.artifact, tmp_path)
    twin = vqkit.load(tmp_path)
    assert twin.content_id == model.content_id and twin.config == model.config
    assert torch.equal(twin.encode(batch), model.encode(batch))
    assert not list(tmp_path.glob("*.tmp"))


def test_the_weights_file_describes_itself(run_folder):
    with safe_open(run_folder / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["config"]) == json.loads(
            (run_folder / "config.json").read_text()
        )


# --------------------------------------------------------------------------------- damaged settings


def change(folder: Path, edit: Callable[[dict], object], everywhere: bool = False) -> None:
    """Edit config.json, and with `everywhere` the copy in the weights' file, as one who means it
    would.
    """
    settings = json.loads((folder / "config.json").read_text())
    edit(settings)
    text = json.dumps(settings)
    (folder / "config.json").write_text(text)
    if everywhere:
        weights = folder / "model.safetensors"
        save_file(load_file(weights), weights, metadata={"config": text})


def assert_one_sentence(folder: Path, name: str, message: str | None = None) -> None:
    """Loading fails with one line that names the file."""
    with pytest.raises(VqkitError, match=message) as caught:
        vqkit.load(folder)
    said = str(caught.value)
    assert name in said and "\n" not in said, said


def data(**changes) -> Callable[[dict], object]:
    return lambda settings: settings["data"].update(changes)


def model_section(**changes) -> Callable[[dict], object]:
    return lambda settings: settings["config"]["model"]["network"].update(changes)


HUGE = int("9" * 400)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update(format="other"), "not a vqkit artifact"),
        (lambda s: s.update(format_version=99), "format version 99"),
        (lambda s: s.update(format_version=True), "format version True"),
        (lambda s: s.update(format_version=1.0), "format version 1.0"),
        (lambda s: s.update(format_version="1"), "format version '1'"),
        (lambda s: s.update(format_version=None), "format version None"),
        (lambda s: s.update(content_id="0" * 64), "damaged|replaced|belong together"),
        (lambda s: s.update(content_id="short"), "content_id"),
        (lambda s: s.update(content_id=None), "content_id"),
        (lambda s: s.update(more=1), "more"),
        (lambda s: s.update(data=None), "data"),
        (lambda s: s.update(data=[1]), "data"),
        (lambda s: s.update(config=None), "config"),
        (lambda s: s.update(config=[]), "config"),
        (lambda s: s.pop("config"), "config"),
        (lambda s: s.pop("data"), "data"),
        (model_section(width=10**9), "does not fit"),
        (model_section(width=1 << 40), "does not fit|cannot be built|width"),
        (model_section(width=HUGE), "settings"),
        (model_section(width=True), "width"),
        (model_section(width=float("inf")), "width"),
        (model_section(widht=3), "unknown key 'widht'"),
        (
            lambda s: s["config"]["model"]["quantizer"].update(codebook_size=1 << 40),
            "does not fit|codebook_size",
        ),
        (
            lambda s: s["config"]["model"]["quantizer"].update(code_dim=1 << 62),
            "config.json|does not fit|built",
        ),
        (data(normalisation={"mean": [0.5]}), "normalisation"),
        (data(normalisation={"mean": [0.5] * 3, "std": [0.3] * 2}), "normalisation|config.json"),
        (
            data(normalisation={"mean": [0.5] * 2, "std": [0.3] * 2}),
            "3 channels, but the normalisation is of 2",
        ),
        (data(normalisation={"mean": [0.5] * 3, "std": [0.0] * 3}), "normalisation"),
        (data(normalisation={"mean": [0.5] * 3, "std": [-1.0] * 3}), "normalisation"),
        (data(normalisation={"mean": [0.5] * 3, "std": [float("inf")] * 3}), "normalisation"),
        (data(normalisation={"mean": [0.5] * 3, "std": [float("nan")] * 3}), "normalisation"),
        (data(normalisation={"mean": [float("nan")] * 3, "std": [1.0] * 3}), "normalisation"),
        (data(normalisation={"mean": [HUGE] * 3, "std": [1.0] * 3}), "normalisation"),
        (
            data(normalisation={"mean": [0.5] * 3, "std": [0.3] * 3, "levels": 0}),
            "normalisation.levels",
        ),
        (
            data(normalisation={"mean": [0.5] * 3, "std": [0.3] * 3, "levels": float("inf")}),
            "normalisation.levels",
        ),
        (
            data(normalisation={"mean": [0.5] * 3, "std": [0.3] * 3, "levels": True}),
            "normalisation.levels",
        ),
        (data(normalisation=None), "normalisation"),
        (lambda s: s["data"].pop("size"), "size"),
        (data(size=[0, 0]), "size"),
        (data(size=[1 << 40, 1 << 40]), "size"),
        (data(size=[float("inf"), 64]), "size"),
        (data(size=[True, True]), "size"),
        (data(size=[32.0, 32]), "size"),
        (data(size=[-32, -32]), "size"),
        (data(size=[32]), "size"),
        (data(size=[32, 32, 32]), "size"),
        (data(size="32x32"), "size"),
        (data(size=[]), "size"),
        (data(size=[1 << 24, 1 << 24]), "size"),
        (lambda s: s["data"].pop("name"), "name"),
        (data(name=7), "name"),
        (data(channels=10**9), "channels"),
        (data(channels=float("inf")), "channels"),
        (data(channels=0), "channels"),
        (data(channels=True), "channels"),
        (data(channels=HUGE), "channels"),
    ],
)
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_changed_config_is_refused_before_memory_is_taken(copy, edit, message, everywhere):
    change(copy, edit, everywhere)
    assert_one_sentence(copy, str(copy), message)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe{",
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b'{"format": "vqkit", "format_version": 1e400}',
        b'{"format": "vqkit", "format_version": NaN}',
        b'{"format": "vqkit", "format_version": ' + b"9" * 5000 + b"}",
        b'{"format": "vqkit"',
    ],
)
def test_a_config_that_is_no_settings(copy, text):
    (copy / "config.json").write_bytes(text)
    assert_one_sentence(copy, str(copy))


def test_numbers_beyond_floats_in_the_text(copy):
    """JSON has no infinity, but a number that Python reads as one."""
    text = (copy / "config.json").read_text()
    for before, after in (('"std": [\n', '"std": [\n1e400,'), ('"lr": ', '"lr": 1e400, "lr_": ')):
        assert before in text
        (copy / "config.json").write_text(text.replace(before, after, 1))
        assert_one_sentence(copy, "config.json")


def test_a_folder_that_is_no_artifact(tmp_path):
    with pytest.raises(VqkitError, match="not a vqkit artifact"):
        vqkit.load(tmp_path)
    with pytest.raises(VqkitError, match="not a vqkit artifact"):
        vqkit.load(tmp_path / "missing")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(VqkitError, match="cannot read"):
        vqkit.load(tmp_path)
    (tmp_path / "config.json").write_text(" " * (5 << 20))
    with pytest.raises(VqkitError, match="holds more than"):
        vqkit.load(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(VqkitError, match="cannot read"):
        vqkit.load(tmp_path)


FILES = ["config.json", "model.safetensors"]
OPTIONAL = ["prior.safetensors", "coder.safetensors", "lossless.safetensors", "metrics.json"]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket"])
@pytest.mark.parametrize("name", [*FILES, *OPTIONAL])
def test_what_is_no_regular_file_is_not_read(whole, name, kind, tmp_path_factory):
    path = whole / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        short = tmp_path_factory.mktemp("s") / "s"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(short))
        path.symlink_to(short)
    if name in FILES:
        assert_one_sentence(whole, name)
    else:
        assert_left_out(whole, name)


# ---------------------------------------------------------------------------------- damaged tensors


@pytest.fixture
def whole(prior_folder: Path, tmp_path: Path) -> Path:
    """A copy of an artifact with all that one can have."""
    return Path(shutil.copytree(prior_folder, tmp_path / "whole"))


def assert_left_out(folder: Path, name: str) -> None:
    """The model loads and works; a warning of one line names the file, what was in it is not
    there.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = vqkit.load(folder, device="cpu")
    said = [str(one.message) for one in caught]
    assert len(said) == 1 and name in said[0] and "\n" not in said[0], said
    parts = {
        "prior.safetensors": model.prior,
        "coder.safetensors": model.artifact.coders.codes,
        "lossless.safetensors": model.artifact.coders.values,
        "metrics.json": model.metrics or None,
    }
    assert [key for key, part in parts.items() if part is None] == [name]
    image = np.zeros((32, 32, 3), np.uint8)
    assert model.decode(model.encode(image)).shape == (1, 32, 32, 3)


def assert_refused(folder: Path, name: str) -> None:
    if name in FILES:
        assert_one_sentence(folder, name)
    else:
        assert_left_out(folder, name)


TENSORS = ["model.safetensors", "prior.safetensors", "coder.safetensors", "lossless.safetensors"]


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata()


def widest(tensors: dict[str, torch.Tensor]) -> str:
    return max(tensors, key=lambda name: tensors[name].numel())


def one_bit(tensors):
    name = widest(tensors)
    values = tensors[name].contiguous().view(torch.uint8).clone()
    values.view(-1)[values.numel() // 2] ^= 1
    return {**tensors, name: values.view(tensors[name].dtype).view(tensors[name].shape)}


def random_values(tensors):
    name = widest(tensors)
    generator = torch.Generator().manual_seed(0)
    fresh = torch.randint(-100, 100, tensors[name].shape, generator=generator).to(
        tensors[name].dtype
    )
    return {**tensors, name: fresh}


def filled_with(value):
    def change(tensors):
        name = next(
            (one for one in sorted(tensors) if tensors[one].is_floating_point()), widest(tensors)
        )
        floats = tensors[name].float()
        return {**tensors, name: torch.full_like(floats, value)}

    return change


def as_type(dtype):
    def change(tensors):
        name = widest(tensors)
        return {**tensors, name: tensors[name].float().to(dtype)}

    return change


def all_as_type(dtype):
    return lambda tensors: {name: value.float().to(dtype) for name, value in tensors.items()}


def reshaped(tensors):
    name = widest(tensors)
    return {**tensors, name: tensors[name].reshape(-1).clone()}


def transposed(tensors):
    name = next(
        one
        for one in sorted(tensors)
        if tensors[one].dim() == 2 and len(set(tensors[one].shape)) == 2
    )
    return {**tensors, name: tensors[name].T.contiguous()}


def longer(tensors):
    name = widest(tensors)
    return {**tensors, name: torch.cat([tensors[name], tensors[name][:1]])}


def without_one(tensors):
    return {name: value for name, value in tensors.items() if name != sorted(tensors)[0]}


def with_one_more(tensors):
    return {**tensors, "more": torch.zeros(2)}


def renamed(tensors):
    first, *rest = sorted(tensors)
    return {f"{first}_": tensors[first], **{name: tensors[name] for name in rest}}


def nothing(tensors):
    return {}


CHANGES = {
    "one bit": one_bit,
    "random values": random_values,
    "nan": filled_with(math.nan),
    "infinity": filled_with(math.inf),
    "minus infinity": filled_with(-math.inf),
    **{
        f"one {dtype}": as_type(dtype)
        for dtype in (torch.int8, torch.float8_e4m3fn, torch.bool, torch.complex64)
    },
    **{
        f"one {dtype}": as_type(dtype)
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64)
    },
    **{
        f"all {dtype}": all_as_type(dtype)
        for dtype in (torch.int8, torch.float8_e5m2, torch.bool, torch.float16)
    },
    "flat": reshaped,
    "transposed": transposed,
    "longer": longer,
    "one is missing": without_one,
    "one more": with_one_more,
    "another name": renamed,
    "no tensors": nothing,
}


def same(one, other):
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype and value.equal(other[name]) for name, value in one.items()
    )


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_not_those_that_were_written(whole, name):
    """With the header as it was, as bits of a disk or hands that know nothing of the sum
    leave it.
    """
    tensors, metadata = read(whole / name)
    for words, change_of in CHANGES.items():
        changed = change_of(tensors)
        if same(changed, tensors):
            # Tensors of a coder are whole numbers already.
            continue
        save_file(changed, whole / name, metadata=metadata)
        assert (words, read(whole / name)[1]) == (words, metadata)
        assert_refused(whole, name)
    save_file(tensors, whole / name, metadata=metadata)
    assert vqkit.load(whole).artifact.problems == ()


@pytest.mark.parametrize("name", TENSORS)
def test_bytes_of_a_file_of_tensors(whole, name):
    """Cut off, random, with single bits wrong anywhere, in the header as in tensors."""
    content = (whole / name).read_bytes()
    rng = np.random.default_rng(0)
    damaged = [
        b"",
        content[:4],
        content[: len(content) // 2],
        content[:-1],
        rng.bytes(1000),
        content + b"\0",
    ]
    damaged += [b"\xff" * 8 + content[8:], (1 << 40).to_bytes(8, "little") + content[8:]]
    length = int.from_bytes(content[:8], "little")
    places = [*rng.integers(0, 8 + length, 20), *rng.integers(8 + length, len(content), 10)]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(changed))
    for one in damaged:
        (whole / name).write_bytes(one)
        assert_refused(whole, name)


@pytest.mark.parametrize("name", TENSORS)
def test_files_in_the_place_of_another(whole, residual_folder, name):
    """Of the same artifact, and the same file of another model."""
    for other in TENSORS:
        if other != name:
            (whole / name).write_bytes((residual_folder.parent / "prior" / other).read_bytes())
            assert_refused(whole, name)
    if (residual_folder / name).exists():
        (whole / name).write_bytes((residual_folder / name).read_bytes())
        assert_refused(whole, name)


def test_a_file_of_weights_that_is_missing(copy):
    (copy / "model.safetensors").unlink()
    assert_one_sentence(copy, "model.safetensors", "cannot read .*No such file")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", ["coder.safetensors", "lossless.safetensors"])
def test_a_coder_of_types_that_numpy_has_not_got(whole, name, dtype):
    save_file({"grid": torch.zeros(2, dtype=dtype)}, whole / name)
    assert_left_out(whole, name)


def test_a_coder_of_types_that_numpy_has_not_got_and_headers_that_fit(whole):
    path = whole / "lossless.safetensors"
    metadata = {key: value for key, value in read(path)[1].items() if key != SUM}
    write_tensors(path, {"grid": torch.zeros(2, dtype=torch.bfloat16)}, metadata)
    assert_left_out(whole, "lossless.safetensors")


def test_what_is_left_out_says_what_to_do(whole):
    advices = {
        "coder.safetensors": "delete it and run vqkit train-coder",
        "prior.safetensors": "without its prior",
    }
    for name, advice in advices.items():
        content = (whole / name).read_bytes()
        (whole / name).write_bytes(b"")
        with pytest.warns(UserWarning, match=advice):
            vqkit.load(whole)
        (whole / name).write_bytes(content)


def test_a_prior_whose_header_is_nested_without_end(whole):
    save_file({"x": torch.zeros(1)}, whole / "prior.safetensors", metadata={"prior": "[" * 100_000})
    assert_left_out(whole, "prior.safetensors")


@pytest.mark.parametrize(
    "change_of",
    [
        lambda header: header.update(format_version=2),
        lambda header: header.update(format_version=True),
        lambda header: header.update(content_id="0" * 64),
        lambda header: header.update(classes=7),
        lambda header: header.update(classes=header["classes"][1:]),
        lambda header: header.update(has_captions=True),
        lambda header: header.update(metrics=[1]),
        lambda header: header["config"]["network"].update(width=1 << 40),
        lambda header: header["config"]["network"].update(width=True),
        lambda header: header.pop("config"),
        lambda header: header.clear(),
    ],
)
def test_a_prior_whose_header_is_another(whole, change_of):
    """With a sum that fits, as one who knows the format would write it."""
    path = whole / "prior.safetensors"
    tensors, metadata = read(path)
    header = json.loads(metadata["prior"])
    change_of(header)
    write_tensors(path, tensors, {"prior": json.dumps(header)})
    assert_left_out(whole, "prior.safetensors")


RATES = [
    "3",
    "[1]",
    '{"low": 3}',
    '{"low": {}}',
    '{"low": {"num_stages": "1", "weight": 0, "bits": 1, "psnr": 1}}',
    '{"low": {"num_stages": 0, "weight": 0, "bits": 1, "psnr": 1}}',
    '{"low": {"num_stages": 2, "weight": 0, "bits": 1, "psnr": 1}}',
    '{"low": {"num_stages": true, "weight": 0, "bits": 1, "psnr": 1}}',
    '{"low": {"num_stages": 1, "weight": -1, "bits": 1, "psnr": 1}}',
    '{"low": {"num_stages": 1, "weight": 1e400, "bits": 1, "psnr": 1}}',
    '{"low": {"num_stages": 1, "weight": NaN, "bits": 1, "psnr": 1}}',
    '{"low": {"num_stages": 1, "weight": "1", "bits": 1, "psnr": 1}}',
    '{"low": {"num_stages": 1, "weight": 0, "bits": 1, "psnr": 1, "more": 1}}',
    "[" * 100_000,
    "",
]


@pytest.mark.parametrize("rates", RATES)
def test_rates_that_are_no_rates(copy, rates):
    """The coder is used without them."""
    path = copy / "coder.safetensors"
    tensors, metadata = read(path)
    write_tensors(
        path,
        tensors,
        {**{key: value for key, value in metadata.items() if key != SUM}, "rates": rates},
    )
    model = vqkit.load(copy)
    assert model.artifact.coders.codes is not None and model.artifact.coders.rates == {}
    with pytest.raises(VqkitError, match="rates of this model: none: fit its coder"):
        model.compressor.codec(rate="low")


WRONG_FIGURES = [
    '{"rates": {"low": 3}}',
    '{"rates": 3}',
    '{"denoised": [1]}',
    '{"denoised": {"a": {}}}',
]


@pytest.mark.parametrize("text", WRONG_FIGURES)
def test_figures_of_a_wrong_form_are_one_sentence(copy, capsys, text):
    (copy / "metrics.json").write_text(text)
    assert cli.main(["info", str(copy)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].endswith(
        "in metrics.json is not what vqkit wrote and is not shown"
    )


@pytest.mark.parametrize("text", [b"", b"[1]", b"\xff", b"[" * 100_000, b" " * (5 << 20)])
def test_figures_that_are_none(whole, text):
    (whole / "metrics.json").write_bytes(text)
    assert_left_out(whole, "metrics.json")


# ------------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_of_an_artifact_follow_the_umask(prior_model, tmp_path, umask):
    before = os.umask(umask)
    try:
        for part in (save_artifact, save_prior, save_coders):
            part(prior_model.artifact, tmp_path / "new")
    finally:
        os.umask(before)
    written = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()
    }
    assert sorted(written) == sorted(FILES + OPTIONAL)
    assert set(written.values()) == {0o666 & ~umask}
    assert vqkit.load(tmp_path / "new").artifact.problems == ()


def test_loading_leaves_the_global_random_state_as_it_is(whole):
    before = torch.get_rng_state()
    artifact = load_artifact(whole)
    assert artifact.prior is not None
    assert torch.equal(torch.get_rng_state(), before)


def test_verbs_that_do_not_train_wait_for_no_compiler_and_no_trainer(whole, few_images, tmp_path):
    """PyTorch imports its compiler, sympy with it, for much that is done on its meta device; both
    take longer than all else that these verbs do.
    """
    code = """
import sys
from vqkit import cli
folder, items, out = sys.argv[1:]
for words in (
    ["info", folder],
    ["data", items, "--sheet", out + "/sheet.png"],
    ["reconstruct", folder, out + "/sheet.png", "--out", out],
    ["generate", folder, "--num", "1", "--out", out + "/sample.png"],
):
    assert cli.main(words) == 0, words
print(sorted({"torch._dynamo", "sympy", "lightning_fabric"} & sys.modules.keys()))
"""
    command = [sys.executable, "-c", code, str(whole), str(few_images), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
