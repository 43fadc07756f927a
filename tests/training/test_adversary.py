"""The adversarial stage: when it comes, what it changes, what it leaves alone, and how it ends."""

import signal

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from vqkit.config import load
from vqkit.errors import VqkitError
from vqkit.model.discriminator import last_matrix
from vqkit.settings import Config
from vqkit.signals.registry import signal_of
from vqkit.training import adversary as stage
from vqkit.training.checkpoint import find_checkpoint, load_checkpoint
from vqkit.training.loop import Interrupted, fit
from vqkit.training.progress import Silent
from vqkit.training.tasks.autoencoder import AutoencoderTask

from ..processes import run_ranks
from ..signals.audio.conftest import RATE, voice
from .runs import rows as logged

# Of any signal: networks and a stage that take a moment.
TINY = [
    "data.validation=0.25",
    "data.test=0",
    "train.precision=float32",
    "train.optimizer=adamw",
    "train.lr=1e-3",
    "train.batch_size=8",
    "train.steps=24",
    "train.validate_every=6",
    "train.log_every=1",
    "train.ema_decay=0.9",
    "model.network.width=16",
    "model.network.decoder_blocks=1",
    "adversary.start=0.25",
    "adversary.alone=4",
    "adversary.ramp=6",
    "adversary.width=4",
    # Nothing is refused, whatever comes of so few steps.
    "adversary.max_fall=100",
]
# Images of 16x16.
SMALL = [
    *TINY,
    "data.image_size=[16, 16]",
    "data.augment.shift=0",
    "model.network.encoder_blocks=1",
    "model.quantizer.codebook_size=16",
    "adversary.kind=patch",
    "adversary.num_layers=1",
]
# Clips of a third of a second, of which the last one of each recording is padded.
SOUNDS = [
    *TINY,
    "data.seconds=0.32",
    "data.overlap=1",
    "model.network.frames=1",
    "model.network.bands=4",
    "model.quantizer.num_stages=2",
    "model.quantizer.stage.codebook_size=16",
    "model.quantizer.stage.code_dim=6",
    "adversary.kind=stft",
    "adversary.windows=[0.016]",
]
SETTINGS = {"images": ("emoji", SMALL), "recordings": ("speech", SOUNDS)}
of_each_signal = pytest.mark.parametrize("make_task", SETTINGS, indirect=True)


class Stops(Silent):
    """Sends the signal of Ctrl-C once, when a step is shown."""

    def __init__(self, step):
        self.step = step

    def update(self, progress, row):
        if row.get("step") == self.step:
            self.step = -1
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def few_recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(8):
        samples = voice(0.5 + 0.1 * number, number)
        soundfile.write(folder / f"{number}.wav", samples, RATE, "PCM_16")
    return folder


@pytest.fixture
def make_task(request, few_images, few_recordings):
    """Of images, unless a test is of each signal."""
    kind = getattr(request, "param", "images")
    recipe, small = SETTINGS[kind]
    sources = {"images": few_images, "recordings": few_recordings}

    def made(*overrides, source=sources[kind], weights=None):
        settings = small
        if "adversary.kind=none" in overrides:
            settings = [setting for setting in settings if not setting.startswith("adversary.")]
        if any(setting.startswith("model.quantizer.kind=") for setting in overrides):
            settings = [setting for setting in settings if "model.quantizer" not in setting]
        config = load(recipe, [*settings, *overrides], Config)
        signal = signal_of(config.data)
        data = signal.open(source, config.data, 0)
        config = config.model_copy(update={"data": signal.settled(config.data, data)})
        return AutoencoderTask(data, config, signal, weights)

    return made


@pytest.fixture(autouse=True)
def lenient(monkeypatch):
    """A discriminator of a few steps is no better than chance; that has tests of its own."""
    monkeypatch.setattr("vqkit.training.stage_guard.LEARNED", -1.0)


def rows(finished, split="train"):
    return [row for row in finished.history if row["split"] == split]


def messages(finished):
    return [event["message"] for event in finished.events]


def assert_equal(expected, found):
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


# ---------------------------------------------------------------------------------------- the stage


@of_each_signal
def test_the_discriminator_learns_alone_and_then_the_weight_rises(make_task, tmp_path):
    finished = fit(make_task(), tmp_path)
    by_step = {row["step"]: row for row in rows(finished)}
    alone = [step for step, row in by_step.items() if "adversary/loss" in row]
    assert alone == list(range(7, 25))
    joint = {step: row for step, row in by_step.items() if "loss/adversarial" in row}
    assert list(joint) == list(range(11, 25))
    # The weight is its share of the ramp times the averaged ratio, within its bounds.
    ratio = None
    for number, row in enumerate(joint.values(), start=1):
        raw = min(row["adversary/gradient_ratio"], stage.MAX_RATIO)
        ratio = raw if ratio is None else stage.DECAY * ratio + (1 - stage.DECAY) * raw
        expected = 0.5 * min(number / 6, 1) * ratio
        assert row["adversary/weight"] == pytest.approx(expected)
    assert finished.figures["adversary"]["in_use"] == "after"
    assert finished.figures["adversary"]["began_at"] == 6


@of_each_signal
def test_before_the_stage_a_run_is_that_of_one_without_an_adversary(make_task, tmp_path):
    with_stage = fit(make_task(), tmp_path / "with")
    without = fit(make_task("adversary.kind=none"), tmp_path / "without")
    pairs = list(zip(rows(with_stage), rows(without), strict=True))
    assert all(one["loss"] == other["loss"] for one, other in pairs[:10])
    assert pairs[11][0]["loss"] != pairs[11][1]["loss"]


@of_each_signal
def test_the_stage_waits_until_validation_has_levelled_off(make_task, tmp_path, monkeypatch):
    settings = ("adversary.start=null", "train.validate_every=2", "train.steps=20")
    # Nothing counts as a gain: it is level after the third pass.
    monkeypatch.setattr("vqkit.training.stage_guard.LEVEL_GAIN", 100.0)
    level = fit(make_task(*settings), tmp_path / "level")
    assert level.figures["adversary"]["began_at"] == 6
    monkeypatch.setattr("vqkit.training.stage_guard.LEVEL_GAIN", -100.0)
    late = fit(make_task(*settings), tmp_path / "late")
    assert late.figures["adversary"]["began_at"] == 12 == stage.LATEST * 20


def test_used_up_patience_begins_the_stage_instead_of_ending_the_run(
    make_task, tmp_path, monkeypatch
):
    monkeypatch.setattr("vqkit.training.stage_guard.LEVEL_GAIN", -100.0)
    task = make_task("adversary.start=null", "train.validate_every=2", "train.patience=1")
    task.is_worse = lambda loss, best: best < float("inf")
    finished = fit(task, tmp_path)
    assert finished.figures["adversary"]["began_at"] == 4
    assert finished.figures["stopped_by"] == "steps"


@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
@pytest.mark.parametrize("regularisation", ["spectral", "r1"])
def test_parts_of_a_batch_give_the_update_of_the_whole(make_task, tmp_path, loss, regularisation):
    settings = [f"adversary.loss={loss}", f"adversary.regularisation={regularisation}"]
    settings += ["train.steps=14", "losses.perceptual=1", "losses.perceptual_distance=bands"]
    if regularisation == "r1":
        # Of a batch in parts only the first is penalised: here it never is.
        settings += ["adversary.start=0.6", "adversary.alone=1"]
    whole = fit(make_task(*settings), tmp_path / "whole")
    parts = fit(make_task(*settings, "train.accumulate=2"), tmp_path / "parts")
    for one, other in zip(rows(whole), rows(parts), strict=True):
        for name in ("loss", "loss/adversarial", "adversary/gradient_ratio", "grad_norm"):
            if name in one:
                assert one[name] == pytest.approx(other[name], rel=2e-2, abs=1e-4), name
    assert any("loss/adversarial" in row for row in rows(parts))


@of_each_signal
def test_a_model_without_codes_may_have_an_adversary(make_task, tmp_path):
    finished = fit(make_task("model.quantizer.kind=none", "model.quantizer.code_dim=6"), tmp_path)
    assert finished.figures["adversary"]["in_use"] == "after"
    assert any("loss/adversarial" in row for row in rows(finished))


# ------------------------------------------------------------------------------------- frozen codes


@of_each_signal
def test_a_stage_of_the_decoder_leaves_all_that_makes_codes_to_the_bit(make_task, tmp_path):
    task = make_task("adversary.train=decoder", "data.test=0.25")
    finished = fit(task, tmp_path)
    before = finished.beside
    after = finished.model
    assert_equal(before.codes_state(), after.codes_state())
    moved = [
        name
        for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    ]
    assert moved and all(name.startswith("decoder.") for name in moved)
    values = next(task.data.split("test", 100)).values
    x = task.data.normalisation.apply(values)
    assert torch.equal(before.encode(x), after.encode(x))


def test_a_decoder_beside_frozen_codes_still_learns_to_do_with_fewer_stages(make_task, tmp_path):
    residual = [
        "model.quantizer.kind=residual",
        "model.quantizer.num_stages=3",
        "model.quantizer.stage={kind: vq, codebook_size: 8}",
        "model.quantizer.quantizer_dropout=0.5",
    ]
    task = make_task(*residual, "adversary.train=decoder", "adversary.start=0")
    model = task.build()
    model.freeze_codes()
    x = task.data.normalisation.apply(next(task.data.split("train", 4)).values)
    state = {name: value.clone() for name, value in model.codes_state().items()}
    depths = set()
    for seed in range(20):
        output = model.train()(x, torch.Generator().manual_seed(seed))
        depths.add(int((output.codes[0] >= 0).flatten(1).all(1).sum()))
    assert depths == {1, 2, 3}
    assert_equal(state, model.codes_state())


# ------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize(
    ("make_task", "mode", "step"),
    [
        *(("images", mode, step) for step in (3, 8, 12, 20) for mode in ("all", "decoder")),
        ("recordings", "all", 8),
        ("recordings", "decoder", 12),
    ],
    indirect=["make_task"],
)
def test_interrupted_in_any_state_and_resumed_is_uninterrupted_to_the_bit(
    make_task, tmp_path, mode, step
):
    settings = [f"adversary.train={mode}"]
    whole = fit(make_task(*settings), tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"at step {step}"):
        fit(make_task(*settings), tmp_path / "broken", Stops(step))
    again = fit(make_task(*settings), tmp_path / "broken")
    assert_equal(whole.model.state_dict(), again.model.state_dict())
    assert_equal(whole.beside.state_dict(), again.beside.state_dict())
    names = ("loss", "adversary/loss", "adversary/weight", "adversary/accuracy_pairs")
    for one, other in zip(rows(whole), rows(again), strict=True):
        assert [one.get(name) for name in names] == [other.get(name) for name in names]
    assert messages(whole) == messages(again)


def test_the_checkpoint_holds_the_discriminator_its_optimiser_and_the_memory(make_task, tmp_path):
    with pytest.raises(Interrupted):
        fit(make_task(), tmp_path, Stops(14))
    tensors, counters = load_checkpoint(find_checkpoint(tmp_path))
    memory = counters["adversary"]
    assert memory["state"] == "joint" and memory["began_at"] == 6
    assert None not in [memory[name] for name in ("ratio", "accuracy", "score_items")]
    discriminator = [name for name in tensors if name.startswith("adversary.")]
    assert discriminator and any(name.startswith("kept.average.") for name in tensors)
    task = make_task()
    of_model = len(list(task.build().parameters()))
    optimised = {int(name.split(".")[1]) for name in tensors if name.startswith("optimizer.")}
    assert max(optimised) >= of_model


# -------------------------------------------------------------------------------- the guard of it


@of_each_signal
def test_a_fall_lowers_the_weight_and_then_takes_the_model_back(make_task, tmp_path):
    first = fit(make_task("adversary.kind=none", "train.steps=60", "train.lr=0.01"), tmp_path / "a")
    settings = ["adversary.weight=1000", "adversary.max_fall=0.2", "adversary.train=decoder"]
    settings += ["train.steps=40", "train.validate_every=2", "train.lr=0.01", "adversary.start=0"]
    task = make_task(*settings, weights=first.model.state_dict())
    finished = fit(task, tmp_path / "b")
    told = messages(finished)
    assert any(f"{task.signal.quality_in_words} fell by" in text for text in told)
    assert any("back at the weights from before" in text for text in told)
    assert finished.figures["stopped_by"] == "guard"
    assert finished.figures["adversary"]["in_use"] == "before"
    # The weights in use are those that the stage began with, and where it came to lies beside.
    assert_equal(first.model.state_dict(), finished.model.state_dict())
    matrices = [last_matrix(model.decoder) for model in (finished.beside, finished.model)]
    assert not torch.equal(*matrices)
    quality = [row[task.signal.quality] for row in rows(finished, "validation")]
    assert quality[-1] < max(quality) - 0.2


@of_each_signal
def test_numbers_that_are_not_finite_end_the_stage_and_not_the_run(make_task, tmp_path):
    task = make_task("adversary.weight=1e38")
    finished = fit(task, tmp_path)
    assert any("the adversarial stage has failed" in text for text in messages(finished))
    assert finished.figures["stopped_by"] == "steps"
    assert all(value.isfinite().all() for value in finished.model.state_dict().values())
    # The run goes on without the adversary.
    assert "adversary/loss" not in rows(finished)[-1]


def test_a_discriminator_that_learns_nothing_ends_the_stage(make_task, tmp_path, monkeypatch):
    monkeypatch.setattr("vqkit.training.stage_guard.LEARNED", 2.0)
    finished = fit(make_task("adversary.lr=1e-12"), tmp_path)
    assert any("no more than chance" in text for text in messages(finished))
    without = fit(make_task("adversary.kind=none"), tmp_path / "without")
    # The decoder never saw it.
    assert_equal(without.model.state_dict(), finished.model.state_dict())


def test_a_sure_discriminator_lowers_the_weight_three_times(make_task, tmp_path, monkeypatch):
    monkeypatch.setattr("vqkit.training.stage_guard.SURE", -1.0)
    monkeypatch.setattr("vqkit.training.stage_guard.EVERY", 2)
    finished = fit(make_task(), tmp_path)
    told = messages(finished)
    assert sum("the weight of the adversary is now" in text for text in told) == 3
    assert sum("was lowered 3 times" in text for text in told) == 1
    assert finished.figures["adversary"]["weight_factor"] == 0.125


def test_one_image_without_validation_is_watched_on_itself(make_task, tmp_path, emoji):
    from PIL import Image

    values = emoji.read(emoji.splits["train"][:1]).values[0]
    Image.fromarray(values.permute(1, 2, 0).numpy()).save(tmp_path / "one.png")
    task = make_task("data.validation=0", source=tmp_path / "one.png")
    finished = fit(task, tmp_path / "run")
    assert finished.figures["adversary"]["in_use"] in ("before", "after")
    assert not rows(finished, "validation")
    assert any("there is no validation split" in text for text in messages(finished))


# ------------------------------------------------------------------------------------------- errors


def test_images_below_the_field_of_view_are_a_sentence(make_task, tmp_path):
    with pytest.raises(VqkitError, match=r"num_layers=2 looks at patches of 18 .* set 1 or fewer"):
        fit(make_task("adversary.num_layers=2"), tmp_path)
    tiny = ["data.image_size=[4, 4]", "adversary.num_layers=null"]
    with pytest.raises(VqkitError, match="patches of 8 positions or more, and an image here has"):
        fit(make_task(*tiny), tmp_path)


def test_a_weight_that_drowns_all_other_terms_is_lowered_to_their_size(
    make_task, tmp_path, monkeypatch
):
    monkeypatch.setattr("vqkit.training.stage_guard.EVERY", 2)
    finished = fit(make_task("adversary.weight=60", "train.steps=40"), tmp_path)
    told = messages(finished)
    assert any("times that of all other terms" in text for text in told)
    assert finished.figures["adversary"]["weight_factor"] < 0.2
    # With its factor, the weight is about that of a gradient as large as all others.
    last = rows(finished)[-1]
    assert last["adversary/weight"] / last["adversary/gradient_ratio"] < 10


def test_shards_have_no_adversary(make_task):
    task = make_task("train.strategy=fsdp2", "train.optimizer=adamw")
    with pytest.raises(VqkitError, match="use train.strategy=ddp, or adversary.kind=none"):
        task.adversary(task.build(), None)


@pytest.mark.parametrize(
    "quantizer",
    [
        ["kind=simvq"],
        ["kind=vq", "update=gradient"],
        ["kind=residual", "stage={kind: vq, update: gradient}"],
    ],
)
def test_shards_hold_no_codes_that_a_step_sets(make_task, quantizer):
    """What a forward pass writes into a copy of sharded parameters would be lost without a word."""
    settings = [f"model.quantizer.{setting}" for setting in quantizer]
    make_task("train.optimizer=adamw", *settings).build()
    with pytest.raises(VqkitError, match="sets its own from the first batch"):
        make_task("train.strategy=fsdp2", "train.optimizer=adamw", *settings).build()
    make_task("train.strategy=fsdp2", "train.optimizer=adamw").build()


# --------------------------------------------------------------------------------------- many ranks


def test_two_ranks_go_through_the_stage_as_one_does(few_images, tmp_path):
    """Whose codes are frozen on the way, for which the model is wrapped anew."""
    settings = [setting for setting in SMALL if not setting.startswith("train.steps")]
    settings += ["adversary.train=decoder", "adversary.width=16", "adversary.alone=12"]
    settings += ["adversary.lr=0.005", "train.steps=32", "train.max_minutes=null", "coder.steps=0"]
    found = []
    for num_ranks, name in enumerate(("one", "two"), 1):
        words = ["-m", "vqkit", "train", few_images, "--out", tmp_path / name, "--recipe", "emoji"]
        for done in run_ranks([*words, *settings], num_ranks):
            assert done.returncode == 0, done.stderr
        found.append(logged(tmp_path / name, "train"))
    one, two = found
    assert [row["step"] for row in one] == [row["step"] for row in two] == list(range(1, 33))
    # Items are changed alike before and not alike within the stage, as each rank has its own.
    for first, second in zip(one[:20], two[:20], strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=2e-3)
    assert "loss/adversarial" in two[-1]
    before = load_file(tmp_path / "two" / "model-before.safetensors")
    after = load_file(tmp_path / "two" / "model.safetensors")
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
