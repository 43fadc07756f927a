"""Loss weights over time, and the sum that they make."""

import json

import numpy as np
import pytest
import torch

import vqkit
from vqkit import config
from vqkit.config import LossConfig, WeightConfig
from vqkit.errors import VqkitError
from vqkit.model.autoencoder import Output
from vqkit.settings import Config
from vqkit.training.losses import (
    changing_weights,
    loss_weights,
    peak_weights,
    scheduled,
    total_loss,
)

from .runs import ALONE, rows, without_codebook


@pytest.mark.parametrize(
    ("weight", "expected"),  # at 0, 1/8, 1/4, 3/8, 1/2 and 1 of training
    [
        (WeightConfig(peak=2), [2, 2, 2, 2, 2, 2]),
        (WeightConfig(peak=2, schedule="warmup", share=0.5), [0, 0.5, 1, 1.5, 2, 2]),
        (WeightConfig(peak=2, schedule="warmup", share=1.0), [0, 0.25, 0.5, 0.75, 1, 2]),
        (WeightConfig(peak=2, schedule="cyclic", share=1.0, cycles=2), [0, 0.5, 1, 1.5, 0, 2]),
        (WeightConfig(peak=2, schedule="cyclic", share=0.5, cycles=2), [0, 1, 2, 2, 0, 2]),
        (WeightConfig(peak=0, schedule="cyclic"), [0, 0, 0, 0, 0, 0]),
    ],
)
def test_schedules_by_hand(weight, expected):
    found = [scheduled(weight, progress) for progress in (0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 1)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_rising_weight_is_never_quite_zero():
    assert scheduled(WeightConfig(peak=1, schedule="warmup"), 0) > 0


def test_the_total_is_the_weighted_sum():
    losses = LossConfig(reconstruction=2.0, kl={"peak": 0.5, "schedule": "warmup"}, commitment=0.0)
    terms = {
        "reconstruction": torch.tensor(3.0),
        "kl": torch.tensor(4.0),
        "commitment": torch.tensor(5.0),
    }
    output = Output(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1, dtype=torch.long), terms)
    assert float(total_loss(output.terms, loss_weights(losses, 0.25))) == pytest.approx(
        2 * 3 + 0.25 * 4
    )
    assert float(total_loss(output.terms, peak_weights(losses))) == pytest.approx(2 * 3 + 0.5 * 4)
    assert changing_weights(losses) == {"kl"}


# ----------------------------------------------------------------------------------------- settings


def test_a_weight_is_a_number_or_a_mapping_and_is_written_as_it_was_read(tmp_path):
    settings = config.load(
        "vae",
        ["losses.kl={peak: 0.1, schedule: cyclic, share: 0.3}", "losses.transform=1e-2"],
        Config,
    )
    assert settings.losses.kl == WeightConfig(peak=0.1, schedule="cyclic", share=0.3)
    assert settings.losses.transform == WeightConfig(peak=0.01)
    text = config.dump(settings)
    assert (
        "  transform: 0.01\n" in text
        and "    schedule: cyclic" in text
        and "# beta: weight of KL" in text
    )
    (tmp_path / "mine.yaml").write_text(text)
    assert config.load(tmp_path / "mine.yaml", (), Config) == settings
    assert (
        config.from_tree(
            json.loads(json.dumps(settings.model_dump(mode="json"))), "settings", Config
        )
        == settings
    )


def test_part_of_a_weight_can_be_overridden():
    settings = config.load("vae", ["losses.kl=4", "losses.kl.schedule=warmup"], Config)
    assert settings.losses.kl == WeightConfig(peak=4.0, schedule="warmup")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("losses.kl=-1", "losses.kl.peak: input should be greater than or equal to 0, got -1"),
        ("losses.kl=much", "losses.kl.peak: input should be a valid number"),
        ("losses.kl={pek: 1, peak: 1}", "unknown key 'pek', did you mean 'peak'? in losses.kl"),
        (
            "losses.kl={peak: 1, schedule: linear}",
            "losses.kl.schedule: input should be 'constant', 'warmup' or",
        ),
        ("losses.kl={schedule: warmup}", "losses.kl.peak: field required"),
        ("losses.distortion.peak=1", "'distortion' is a value, not a section"),
    ],
)
def test_mistakes_in_weights_are_named(override, message):
    with pytest.raises(VqkitError) as caught:
        config.load("vae", [override], Config)
    assert message in str(caught.value)


# --------------------------------------------------------------------------------------- whole runs

VARIATIONAL = ["model.variational=true", "model.transform.kind=mlp", "model.transform.latent_dim=6"]
SCHEDULED = [
    "losses.kl={peak: 0.01, schedule: cyclic, cycles: 2}",
    "losses.transform={peak: 0.1, schedule: warmup}",
]


def test_a_run_follows_its_schedules_and_the_report_draws_them(tmp_path):
    model = vqkit.train("emoji", tmp_path / "run", overrides=[*ALONE, *VARIATIONAL, *SCHEDULED])
    train, validation = rows(tmp_path / "run", "train"), rows(tmp_path / "run", "validation")
    expected = [
        0.1 * 9 / 20,
        0.1 * 19 / 20,
        0.1,
        0.1,
    ]  # a row is of the step before it, which had done one less
    assert [row["weight/transform"] for row in train] == pytest.approx(expected)
    assert [row["weight/kl"] for row in train] == pytest.approx([0.009, 0.01, 0.009, 0.01])
    assert not any(
        key in row for row in train for key in ("weight/commitment", "weight/reconstruction")
    )
    weights = peak_weights(model.config.losses)
    for row, now in [(validation[-1], {})] + [
        (row, {"kl": row["weight/kl"], "transform": row["weight/transform"]}) for row in train
    ]:
        terms = {
            key.removeprefix("loss/"): value
            for key, value in row.items()
            if key.startswith("loss/")
        }
        assert terms.keys() == {"reconstruction", "commitment", "kl", "transform"}
        assert row["loss"] == pytest.approx(
            sum((weights | now)[name] * value for name, value in terms.items())
        )
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Loss weights" in page and "kl, up to 0.01" in page


def test_a_run_with_constant_weights_has_no_panel_of_weights(run_folder):
    assert "Loss weights" not in (run_folder / "report.html").read_text()
    assert not any(key.startswith("weight/") for row in rows(run_folder, "train") for key in row)


@pytest.mark.parametrize("kind", ["mlp", "conv", "linear"])
@pytest.mark.parametrize("distance", ["sliced_wasserstein", "prior_network"])
def test_every_map_trains_and_is_loaded_again(kind, distance, tmp_path, emoji):
    overrides = [*ALONE, "train.steps=3", "model.variational=true", f"model.transform.kind={kind}"]
    overrides += ["losses.transform=0.1", f"losses.transform_distance={distance}"]
    model, loaded = (
        vqkit.train("emoji", tmp_path / "run", overrides=overrides),
        vqkit.load(tmp_path / "run"),
    )
    images = emoji.read(emoji.splits["test"][:4]).values.permute(0, 2, 3, 1).numpy()
    assert torch.equal(loaded.encode(images), model.encode(images))
    assert np.array_equal(loaded.reconstruct(images), model.reconstruct(images))
    assert np.array_equal(loaded.sample(3, seed=1), model.sample(3, seed=1))
    assert loaded.sample(3).shape == (3, 32, 32, 3) and loaded.sample(3).dtype == np.uint8


def test_reduced_to_nothing_a_run_is_that_of_plain_vq_to_the_bit(tmp_path, run_folder):
    settings = [
        *ALONE,
        "train.steps=20",
        "model.variational=true",
        "losses.kl=0",
        "losses.transform=0",
        "model.transform.kind=none",
    ]
    reduced = vqkit.train("emoji", tmp_path / "reduced", overrides=settings)
    plain = vqkit.train("emoji", tmp_path / "plain", overrides=[*ALONE, "train.steps=20"])
    assert reduced.content_id == plain.content_id
    one, two = (rows(tmp_path / name, "train") for name in ("plain", "reduced"))
    assert [row["loss"] for row in one] == [row["loss"] for row in two]


def test_settings_that_contradict_one_another_are_one_sentence(tmp_path):
    with pytest.raises(
        VqkitError, match="do not go together: model.transform.kind=linear keeps the width"
    ):
        overrides = [*ALONE, "model.transform.kind=linear", "model.transform.latent_dim=5"]
        vqkit.train("emoji", tmp_path / "run", overrides=overrides)


def test_a_vae_samples_from_the_prior_of_its_latents(tmp_path):
    overrides = [*without_codebook(ALONE), "model.quantizer.kind=none", "model.variational=true"]
    model = vqkit.train("emoji", tmp_path / "run", overrides=overrides)
    assert model.sample(2).shape == (2, 32, 32, 3)
    assert not np.array_equal(model.sample(2, seed=0), model.sample(2, seed=1))
