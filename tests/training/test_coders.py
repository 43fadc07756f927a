"""The float twin of the integer prior: what it promises is what the integers do."""

import copy
import time

import numpy as np
import pytest
import torch

import vqkit
from vqkit.coding import TransformerCoder
from vqkit.coding.codes.transformer import frequencies
from vqkit.coding.values.network import MAX_SIDE
from vqkit.errors import VqkitError
from vqkit.pipelines.coders import train_coder
from vqkit.training.loop import fit
from vqkit.training.progress import Silent
from vqkit.training.tasks.code_coder import MIN_STEPS, NUM_VALIDATIONS, CodeCoderTask, CoderNetwork
from vqkit.training.tasks.value_coder import ValueCoderTask

from ..conftest import TINY

SIZES, GRID = [20, 12, 7], (3, 4)


def network(sizes=SIZES, grid=GRID) -> CoderNetwork:
    """Weights large enough that clips and roundings take place."""
    torch.manual_seed(0)
    found = CoderNetwork(sizes, grid, 32)
    for name, parameter in found.named_parameters():
        torch.nn.init.normal_(parameter, std=0.15 if "layers" in name else 0.4)
    return found


def random_codes(count: int, sizes=SIZES, grid=GRID) -> torch.Tensor:
    return torch.stack([torch.randint(size, (count, *grid)) for size in sizes], 1)


def bits_of(prior: TransformerCoder, codes: np.ndarray) -> np.ndarray:
    """What each code costs, slot after slot."""
    found = np.zeros(codes.shape)
    for stage in range(codes.shape[1]):
        flat = codes[:, stage].reshape(len(codes), -1, 1)
        for items, slots, table in prior.tables(codes, stage):
            chosen = np.take_along_axis(table, flat[items, slots], 2)
            found[:, stage].reshape(len(codes), -1)[items, slots] = 16 - np.log2(chosen[..., 0])
    return found


@pytest.mark.parametrize("sizes, grid", [(SIZES, GRID), ([9], (2, 300))])
def test_the_twin_says_what_the_integers_cost(sizes, grid):
    """Bits by the integers and by the twin: sums that lie between two roundings may fall to either
    side.

    The second grid is longer than what attention sees.
    """
    net, codes = network(sizes, grid), random_codes(4, sizes, grid)
    with torch.no_grad():
        expected = net(codes).numpy()
    apart = np.abs(bits_of(net.integers(), codes.numpy()) - expected)[expected < 8]
    assert (
        np.median(apart) < 0.04
        and np.quantile(apart, 0.99) < 0.12
        and apart.max() < 0.2
        and apart.mean() < 0.05
    )


def test_the_cost_of_a_file_is_what_training_minimised():
    net, codes = network(), random_codes(64)
    with torch.no_grad():
        promised = float(net(codes).clamp(max=16).sum()) / 8
    written = sum(len(part) for item in net.integers().encode(codes.numpy()) for part in item)
    assert written == pytest.approx(promised, rel=0.1)


@pytest.mark.parametrize("stages", [1, 2, 9, 16])
def test_any_number_of_stages_stays_within_what_a_file_may_hold(stages):
    prior = CoderNetwork([8] * stages, (2, 2), 32).integers()
    codes = np.random.default_rng(0).integers(0, 8, (2, stages, 2, 2))
    again = TransformerCoder.from_tensors(prior.tensors())
    assert np.array_equal(again.decode(prior.encode(codes), (2, 2)), codes)


def test_frequencies_are_those_of_the_softmax():
    logits = np.array([[0.0, -32.0, -64.0, -320.0]])
    expected = 2.0 ** np.array([0, -1, -2, -10])
    assert np.allclose(frequencies(logits)[0] / 65536, expected / expected.sum(), atol=3e-5)


def test_training_on_sides_that_no_network_of_pixels_holds_leaves_a_model_that_loads(tmp_path):
    np.save(
        tmp_path / "tall.npy",
        np.random.default_rng(0).integers(0, 256, (20, MAX_SIDE + 4, 8, 3), np.uint8),
    )
    settings = [*TINY, "train.steps=2", "train.batch_size=2", "data.image_size=null"]
    settings += ["coder.steps=1"]
    vqkit.train(tmp_path / "tall.npy", tmp_path / "run", "emoji", settings)
    model = vqkit.load(tmp_path / "run")
    assert model.artifact.coders.codes is not None and model.artifact.coders.values is None
    image = np.zeros((16, 8, 3), np.uint8)
    assert np.array_equal(model.decompress(model.compress(image, lossless=True)), image)


@pytest.mark.parametrize("bound", ["MAX_CODES", "MAX_STAGES", "MAX_POSITIONS"])
def test_no_coder_is_fitted_that_could_not_be_read(bound, model, monkeypatch):
    assert CodeCoderTask.why_not(model.tokenizer) == ""
    monkeypatch.setattr(f"vqkit.training.tasks.code_coder.{bound}", 0)
    assert "more than 0" in CodeCoderTask.why_not(model.tokenizer)


class Steps(Silent):
    """The steps that were shown."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def update(self, progress, row):
        self.seen.append(row["step"])


def of_few(emoji, count: int):
    few = copy.copy(emoji)
    few.splits = emoji.splits | {
        name: emoji.splits[name][:count] for name in ("train", "validation")
    }
    return few


def test_a_fit_that_overfits_ends(model, emoji, tmp_path, monkeypatch):
    monkeypatch.setattr("vqkit.training.tasks.code_coder.STEP_CODES", 1 << 10)
    steps, few = Steps(), of_few(emoji, 20)
    finished = fit(CodeCoderTask(model.tokenizer, few, 10 * MIN_STEPS), tmp_path / "one", steps)
    assert MIN_STEPS / NUM_VALIDATIONS < steps.seen[-1] < MIN_STEPS, (
        "before its steps, few for so few codes"
    )
    assert finished.figures["stopped_by"] == "plateau"
    again = (
        fit(CodeCoderTask(model.tokenizer, few, MIN_STEPS), tmp_path / "two")
        .model.integers()
        .tensors()
    )
    found = finished.model.integers().tensors()
    assert all(np.array_equal(values, again[name]) for name, values in found.items())


def test_encoding_ends_in_time_for_the_fit(model, emoji):
    """Items that there is no time to encode are left out, and one batch there always is."""
    whole = CodeCoderTask(model.tokenizer, emoji, 10)
    assert len(whole.codes) == len(emoji.splits["train"]) > 256
    late = CodeCoderTask(model.tokenizer, emoji, 10, deadline=time.monotonic())
    assert len(late.codes) == 256 and torch.equal(late.codes, whole.codes[:256])
    in_time = CodeCoderTask(model.tokenizer, emoji, 10, deadline=time.monotonic() + 3600)
    assert torch.equal(in_time.codes, whole.codes)


def test_few_values_are_not_gone_over_without_end(model, emoji, tmp_path):
    steps = Steps()
    task = ValueCoderTask(model.tokenizer, of_few(emoji, 2), 200)  # 800 steps a plane
    fit(task, tmp_path, steps)
    assert task.settings.steps == max(steps.seen) == 300


@pytest.mark.parametrize("steps", [0, -1])
def test_a_coder_is_not_replaced_by_an_untrained_one(steps, run_folder):
    before = (run_folder / "coder.safetensors").read_bytes()
    with pytest.raises(VqkitError, match="at least 1 step"):
        train_coder(run_folder, "emoji", steps=steps)
    assert (run_folder / "coder.safetensors").read_bytes() == before
