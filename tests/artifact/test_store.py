import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vqkit
from vqkit import cli
from vqkit.artifact.store import save_artifact
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
    from safetensors import safe_open

    with safe_open(run_folder / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["config"]) == json.loads((run_folder / "config.json").read_text())


# -------------------------------------------------------------------------------------------------- damaged artifacts


def change(folder: Path, edit) -> None:
    settings = json.loads((folder / "config.json").read_text())
    edit(settings)
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update(format="other"), "not a vqkit artifact"),
        (lambda s: s.update(format_version=99), "format version 99"),
        (lambda s: s["config"]["model"]["network"].update(width=10**9), "does not fit"),
        (lambda s: s["config"]["model"]["network"].update(widht=3), "unknown key 'widht'"),
        (lambda s: s["data"].update(normalisation={"mean": [0.5]}), "normalisation"),
        (lambda s: s["data"].pop("size"), "size"),
        (lambda s: s["data"].pop("name"), "name"),
        (lambda s: s["data"].update(channels=10**9), "channels"),
    ],
)
def test_a_changed_config_is_refused_before_memory_is_taken(copy, edit, message):
    change(copy, edit)
    with pytest.raises(VqkitError, match=message):
        vqkit.load(copy)


def test_truncated_replaced_and_missing_weights(copy):
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VqkitError, match="cannot read the artifact"):
        vqkit.load(copy)
    save_file({"other": torch.zeros(2)}, weights)
    with pytest.raises(VqkitError, match="does not fit"):
        vqkit.load(copy)
    weights.unlink()
    with pytest.raises(VqkitError, match="cannot read the artifact"):
        vqkit.load(copy)


def test_a_folder_that_is_no_artifact(tmp_path):
    with pytest.raises(VqkitError, match="not a vqkit artifact"):
        vqkit.load(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(VqkitError, match="cannot read"):
        vqkit.load(tmp_path)
    (tmp_path / "config.json").write_text(" " * (5 << 20))
    with pytest.raises(VqkitError, match="larger than"):
        vqkit.load(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(VqkitError, match="cannot read"):
        vqkit.load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", ["coder.safetensors", "lossless.safetensors"])
def test_a_coder_of_types_that_numpy_has_not_got(copy, name, dtype):
    save_file({"grid": torch.zeros(2, dtype=dtype)}, copy / name)
    with pytest.raises(VqkitError, match="cannot read the coder .* delete it and run vqkit train-coder"):
        vqkit.load(copy)


def test_a_prior_whose_header_is_nested_without_end(copy):
    save_file({"x": torch.zeros(1)}, copy / "prior.safetensors", metadata={"prior": "[" * 100_000})
    with pytest.raises(VqkitError, match="cannot read the prior"):
        vqkit.load(copy)


@pytest.mark.parametrize(
    "rates", [3, [1], {"low": 3}, {"low": {}}, {"low": {"num_stages": "1", "weight": 0, "bits": 1, "psnr": 1}}]
)
def test_rates_that_are_no_rates(copy, rates):
    metrics = json.loads((copy / "metrics.json").read_text())
    (copy / "metrics.json").write_text(json.dumps({**metrics, "rates": rates}))
    with pytest.raises(VqkitError, match="fit the coder anew"):
        vqkit.load(copy).codec(rate="low")


def test_figures_of_a_wrong_form_are_one_sentence(copy, capsys):
    (copy / "metrics.json").write_text(json.dumps({"rates": {"low": 3}}))
    assert cli.main(["info", str(copy)]) == 2
    assert (
        capsys.readouterr().err == "vqkit: 'rates' in metrics.json is not what vqkit wrote; take it out of the file\n"
    )
