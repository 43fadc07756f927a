"""The loop as a whole: schedules, optimisers, exact resume, several ranks, and every way to
stop.
"""

import math
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vqkit
from vqkit import config
from vqkit.apps.evaluate import open_for
from vqkit.artifact.build import build_model
from vqkit.config import TrainConfig
from vqkit.config.quantizers import QUANTIZERS
from vqkit.errors import TrainingDiverged, VqkitError
from vqkit.settings import Config
from vqkit.training.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from vqkit.training.guard import check_finite
from vqkit.training.losses import peak_weights
from vqkit.training.optimizers import build_optimizers, orthogonalise
from vqkit.training.task import cosine_schedule

from ..processes import run, run_ranks, start
from .runs import ALONE, assert_same_weights, rows, wait_for, without_codebook


def test_schedule_by_hand():
    assert cosine_schedule(0.05, 0.1, 0.01) == pytest.approx(0.5)
    assert cosine_schedule(0.1, 0.1, 0.01) == pytest.approx(1.0)
    assert cosine_schedule(0.55, 0.1, 0.01) == pytest.approx(0.01 + 0.99 * 0.5)
    assert cosine_schedule(1.0, 0.1, 0.01) == pytest.approx(0.01)
    assert 0 < cosine_schedule(0.0, 0.1, 0.01) < 0.01


OF_IMAGES = [
    name
    for name in config.recipe_names(Config)
    if config.load(name, (), Config).data.signal == "image"
]
# Recipes whose network has a test of its own in full size.
NARROW = {"photos-gpu": "model.network.width=32"}
KINDS = [f"model.quantizer.kind={section.model_fields['kind'].default}" for section in QUANTIZERS]


@pytest.mark.parametrize(
    ("recipe", "variant"),
    [(name, NARROW.get(name, "seed=0")) for name in OF_IMAGES]
    + [("emoji", kind) for kind in [*KINDS, "model.network.kind=conv", "model.network.kind=mlp"]],
)
def test_every_recipe_and_quantizer_takes_two_steps_and_leaves_an_artifact(
    recipe, variant, tmp_path, few_images
):
    """With its coders of files."""
    overrides = [
        variant,
        "train.steps=2",
        "train.batch_size=4",
        "data.channels=3",
        "data.image_size=[16,16]",
    ]
    model = vqkit.train(few_images, tmp_path / "run", recipe, overrides)
    assert model.metrics["step"] == 2 and math.isfinite(model.metrics["psnr"])
    assert vqkit.load(tmp_path / "run").content_id == model.content_id


def test_training_learns_and_uses_its_codes(run_folder):
    validation = rows(run_folder, "validation")
    assert [row["step"] for row in validation] == [20, 40]
    assert validation[-1]["psnr"] > validation[0]["psnr"] + 0.5
    assert validation[-1]["usage"] > 0.9


def test_the_sum_of_the_terms_is_made_with_the_weights_of_the_recipe(run_folder):
    weights = peak_weights(vqkit.load(run_folder).config.losses)
    for row in rows(run_folder, "train"):
        expected = sum(
            weights[name] * row[f"loss/{name}"] for name in ("reconstruction", "commitment")
        )
        assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_batch_in_parts_is_the_batch(tmp_path):
    """Gradients of two halves add up to that of the whole; without a quantizer nothing depends on
    the split.
    """
    settings = without_codebook(ALONE) + ["model.quantizer.kind=none"]
    for parts in (1, 2):
        vqkit.train(
            "emoji",
            tmp_path / str(parts),
            overrides=[*settings, f"train.accumulate={parts}", "losses.distortion=mse"],
        )
    whole, halves = (rows(tmp_path / name, "train") for name in ("1", "2"))
    np.testing.assert_allclose([r["loss"] for r in halves], [r["loss"] for r in whole], rtol=1e-3)


def test_bfloat16_trains_about_as_float32_does_and_saves_float32(tmp_path, run_folder):
    vqkit.train("emoji", tmp_path / "run", overrides=[*ALONE, "train.precision=bfloat16"])
    assert vqkit.load(tmp_path / "run").metrics["precision"] == "bfloat16"
    half, single = rows(tmp_path / "run", "validation")[-1], rows(run_folder, "validation")[-1]
    assert half["psnr"] == pytest.approx(single["psnr"], abs=0.5)
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float32, torch.int64}


def test_a_streamed_set_trains_as_one_in_memory_does(tmp_path, run_folder):
    """Same pixels in the same order; only the normalisation is measured on fewer images."""
    vqkit.train("emoji", tmp_path / "run", overrides=[*ALONE, "data.max_memory_mb=1"])
    streamed, kept = rows(tmp_path / "run", "train"), rows(run_folder, "train")
    np.testing.assert_allclose([r["psnr"] for r in streamed], [r["psnr"] for r in kept], atol=0.5)


# --------------------------------------------------------------------------------------- optimisers


def test_every_parameter_is_in_one_optimiser(emoji):
    model = build_model(config.load("emoji", (), Config), emoji.shape, emoji.normalisation)
    for name in ("adamw", "muon"):
        optimizers = build_optimizers(model, TrainConfig(optimizer=name))
        held = [p for one in optimizers for group in one.param_groups for p in group["params"]]
        assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    decayed = optimizers[0].param_groups[1]
    assert decayed["weight_decay"] == 0 and all(p.ndim < 2 for p in decayed["params"])


@pytest.mark.parametrize("shape", [(3, 16, 48), (2, 48, 16), (1, 32, 32)])
def test_orthogonalise_keeps_directions_and_levels_singular_values(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    values = (left.transpose(1, 2) @ orthogonalise(matrices) @ right.transpose(1, 2)).diagonal(
        dim1=1, dim2=2
    )
    assert float(values.min()) > 0.3 and float(values.max()) < 1.3
    off_diagonal = left.transpose(1, 2) @ orthogonalise(matrices) @ right.transpose(
        1, 2
    ) - torch.diag_embed(values)
    assert float(off_diagonal.abs().max()) < 1e-3


# ------------------------------------------------------------------------------- resuming, stopping


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_killed_and_resumed_equals_uninterrupted_to_the_bit(tmp_path, optimizer):
    settings = [*ALONE, f"train.optimizer={optimizer}", "data.augment.shift=2", "train.patience=50"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    vqkit.train("emoji", whole, overrides=settings)
    process = start(["-m", "vqkit", "train", "emoji", "--out", broken, *settings])
    wait_for(lambda: find_checkpoint(broken) is not None, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (broken / "model.safetensors").exists()
    assert vqkit.train("emoji", broken, resume=True) is not None
    assert_same_weights(whole / "model.safetensors", broken / "model.safetensors")
    assert [r["loss"] for r in rows(whole, "train")] == [r["loss"] for r in rows(broken, "train")]


def test_ctrl_c_saves_says_how_to_go_on_and_fails(tmp_path):
    folder = tmp_path / "run"
    process = start(
        [
            "-m",
            "vqkit",
            "train",
            "emoji",
            "--out",
            folder,
            *ALONE,
            "train.steps=100000",
            "train.checkpoint_every=100000",
        ]
    )
    wait_for(lambda: (folder / "metrics.jsonl").exists() and rows(folder, "train"), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in errors and "Traceback" not in errors
    assert load_checkpoint(find_checkpoint(folder))[1]["step"] >= rows(folder, "train")[-1]["step"]


def test_a_time_budget_ends_with_a_finished_schedule(tmp_path):
    model = vqkit.train(
        "emoji",
        tmp_path / "run",
        overrides=[*ALONE, "train.steps=1000000", "train.max_minutes=0.05"],
    )
    assert model.metrics["stopped_by"] == "max_minutes"
    train = rows(tmp_path / "run", "train")
    assert train[-1]["lr"] < 0.1 * max(row["lr"] for row in train)


def test_a_plateau_stops_and_keeps_the_best_weights(tmp_path):
    settings = [
        *ALONE,
        "train.steps=2000",
        "train.patience=2",
        "train.validate_every=5",
        "train.lr=1e-8",
    ]
    model = vqkit.train("emoji", tmp_path / "run", overrides=[*settings, "losses.commitment=0"])
    assert model.metrics["stopped_by"] == "plateau" and model.metrics["step"] < 2000
    losses = [row["loss"] for row in rows(tmp_path / "run", "validation")]
    data = open_for(model, "emoji", "validation")
    values = data.read(data.splits["validation"]).values
    with torch.no_grad():
        best = float(model.network(model.tokenizer.standardise(values)).terms["reconstruction"])
    assert best == pytest.approx(min(losses), rel=1e-3)


def test_training_needs_no_images_to_validate_on(tmp_path, few_images):
    """As `vqkit` advises for few images."""
    overrides = [setting for setting in ALONE if "validate_every" not in setting]
    overrides += ["data.image_size=[16,16]", "data.validation=0", "data.test=0"]
    overrides += ["train.max_minutes=5"]
    model = vqkit.train(few_images, tmp_path / "run", "emoji", overrides)
    assert model.metrics["split"] == "train" and model.metrics["step"] == 40
    assert rows(tmp_path / "run", "train") and not rows(tmp_path / "run", "validation")
    small = ["network.width=32", "network.num_heads=2", "network.num_blocks=1", "train.steps=2"]
    prior = vqkit.train_prior(tmp_path / "run", few_images, overrides=[*small, "train.patience=1"])
    assert prior.wanted_prior().metrics["split"] == "train"
    said = [
        line
        for line in (tmp_path / "run" / "prior" / "metrics.jsonl").read_text().splitlines()
        if "patience" in line
    ]
    assert len(said) == 1 and "no validation split" in said[0]


def test_divergence_names_step_and_term(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"step \d+: \S+ is (nan|inf)"):
        settings = [
            "train.lr=1e30",
            "train.warmup=0",
            "train.clip_norm=0",
            "model.quantizer.kind=none",
        ]
        vqkit.train("emoji", tmp_path / "run", overrides=[*without_codebook(ALONE), *settings])
    with pytest.raises(TrainingDiverged, match="step 7: loss/kl is inf"):
        check_finite(7, {"loss/reconstruction": 1.0, "loss/kl": math.inf}, tmp_path)


def test_nothing_is_overwritten_and_resume_needs_something(run_folder, tmp_path):
    with pytest.raises(VqkitError, match="not empty"):
        vqkit.train("emoji", run_folder, overrides=ALONE)
    with pytest.raises(VqkitError, match="is finished"):
        vqkit.train("emoji", run_folder, resume=True)
    with pytest.raises(VqkitError, match="no checkpoint"):
        vqkit.train("emoji", tmp_path / "new", resume=True)


def test_a_run_that_is_stopped_after_its_steps_is_finished_by_resuming(
    tmp_path, monkeypatch, few_images
):
    """No checkpoint was due.

    The plateau that ended the steps stays their end, and is looked at once.
    """
    settings = [
        *ALONE,
        "train.steps=2000",
        "train.patience=2",
        "train.validate_every=5",
        "train.lr=1e-8",
    ]
    settings += ["train.checkpoint_every=100000", "losses.commitment=0", "coder.steps=6"]
    settings += ["data.image_size=[16,16]"]
    folder = tmp_path / "run"
    with monkeypatch.context() as context:
        context.setattr("vqkit.pipelines.autoencoder.fit_coders", interrupted)
        with pytest.raises(KeyboardInterrupt):
            vqkit.train(few_images, folder, "emoji", settings)
    passes, before = rows(folder, "validation"), vqkit.load(folder)
    model = vqkit.train(few_images, folder, resume=True)
    assert model.content_id == before.content_id and model.metrics["stopped_by"] == "plateau"
    assert (
        model.artifact.coders.codes is not None
        and (folder / "report.html").exists()
        and (folder / "README.md").exists()
    )
    assert rows(folder, "validation") == passes
    with pytest.raises(VqkitError, match="is finished"):
        vqkit.train(few_images, folder, resume=True)


def interrupted(*given):
    """Stands in for what Ctrl-C stops."""
    raise KeyboardInterrupt


# A process in which files above a size cannot be written, as when a disk is full.
LIMITED = (
    "import resource, signal, sys\n"
    "def limit(size):\n"
    "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
)


def test_a_failed_checkpoint_leaves_the_last_one(tmp_path):
    code = LIMITED + (
        "import torch; from pathlib import Path; from vqkit.training.checkpoint import "
        "save_checkpoint\n"
        "save_checkpoint(Path(sys.argv[1]), 1, {'x': torch.ones(3)}, {'step': 1})\n"
        "limit(10_000)\n"
        "save_checkpoint(Path(sys.argv[1]), 2, {'x': torch.ones(30_000)}, {'step': 2})\n"
    )
    done = run(["-c", code, tmp_path])
    assert "the last checkpoint, step-000000001.safetensors, is intact" in done.stderr
    tensors, state = load_checkpoint(find_checkpoint(tmp_path))
    assert state == {"step": 1} and torch.equal(tensors["x"], torch.ones(3))
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == [
        "step-000000001.safetensors"
    ]


def test_a_full_disk_is_one_clear_error_and_the_last_checkpoint_survives(tmp_path):
    folder = tmp_path / "run"
    code = LIMITED + "from vqkit.cli import main; limit(200_000); sys.exit(main(sys.argv[1:]))"
    done = run(["-c", code, "train", "emoji", "--out", folder, *ALONE])
    assert done.returncode == 2
    assert (
        "cannot write the checkpoint of step 20" in done.stderr and "Traceback" not in done.stderr
    )
    assert not list(folder.rglob("*.tmp"))


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = save_checkpoint(tmp_path, 1, {"x": torch.ones(3)}, {"step": 1})
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(VqkitError, match="step-000000001"):
        load_checkpoint(path)


# --------------------------------------------------------------------------------------- many ranks


def by_torchrun(words):
    """Two ranks, each a process that starts from nothing."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run([*torchrun, *words])
    assert done.returncode == 0, done.stderr


def forked(words):
    """Two ranks with what torchrun tells its processes."""
    for done in run_ranks(words, 2):
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("strategy", "run_two"), [("ddp", by_torchrun), ("fsdp2", forked)])
def test_two_ranks_train_as_one_does(tmp_path, strategy, run_two, run_folder):
    """Same codebook on both ranks (their statistics are summed) and the curve of one process at the
    same batch.
    """
    folder = tmp_path / "two"
    run_two(
        ["-m", "vqkit", "train", "emoji", "--out", folder, *ALONE, f"train.strategy={strategy}"]
    )
    one, two = rows(run_folder, "train"), rows(folder, "train")
    np.testing.assert_allclose([r["loss"] for r in two], [r["loss"] for r in one], rtol=2e-3)
    np.testing.assert_allclose(
        rows(folder, "validation")[-1]["psnr"],
        rows(run_folder, "validation")[-1]["psnr"],
        atol=0.05,
    )


def test_a_rank_without_validation_images_changes_nothing(tmp_path):
    """One batch to validate on, of which the second rank sees none."""
    settings = [*ALONE, "train.steps=20", "data.validation=0.001"]
    forked(["-m", "vqkit", "train", "emoji", *settings, "--out", tmp_path / "two"])
    vqkit.train("emoji", tmp_path / "one", overrides=settings)
    one, two = (rows(tmp_path / name, "validation")[-1] for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert two["psnr"] == pytest.approx(one["psnr"], abs=0.05) and two["usage"] == pytest.approx(
        one["usage"], abs=0.05
    )
