"""The guard against collapse: its figures by hand, its remedies one by one, and real trainings made
to collapse.
"""

import json
import math
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml

import vqkit
from vqkit import config
from vqkit.config import FSQConfig, LFQConfig, ResidualConfig, TrainConfig, VQConfig
from vqkit.metrics import code_figures
from vqkit.model.quantizers import build_quantizer
from vqkit.settings import Config
from vqkit.training.checkpoint import find_checkpoint, load_checkpoint
from vqkit.training.guard import (
    SLICE,
    SLICES,
    BrokenCodebook,
    Guard,
    fingerprint,
    num_alive,
    reachable_usage,
)

from ..benchmarks import benchmark
from ..processes import start
from .runs import ALONE, assert_same_weights, wait_for

WINDOW = SLICE * SLICES
# The benchmark, which knows how to make codebooks collapse.
collapse = benchmark("collapse")
WEIGHTS = {"reconstruction": 1.0, "commitment": 0.25}


def guard_of(quantizer, mode="act", ranks=1):
    engine = SimpleNamespace(
        sum=lambda values: values,
        device=torch.device("cpu"),
        world_size=ranks,
        rank=0,
        is_main=True,
    )
    return Guard(quantizer, TrainConfig(guard=mode), engine)


def vq(codebook_size=64, **settings):
    torch.manual_seed(0)
    return build_quantizer(
        VQConfig(codebook_size=codebook_size, code_dim=4, **{"revive_threshold": 0.0, **settings})
    )


def feed(guard, draw, steps=WINDOW, start=0, progress=0.1, move=True, **row):
    """Steps with codes from `draw()`; the codebooks move as if they learned.

    Returns the events with their steps.
    """
    events = []
    for step in range(start + 1, start + steps + 1):
        guard.add(draw())
        for part in guard.parts if move else ():
            if hasattr(part, "codebook"):
                part.codebook.data.mul_(1.001)
        given = {"lr": 1e-3, "loss/reconstruction": 1.0, "loss/commitment": 0.1, **row}
        events += [(step, *event) for event in guard.check(step, given, WEIGHTS, progress)]
    return events


def uniform(codebook_size, tokens=640, num_codebooks=1):
    source = torch.Generator().manual_seed(0)
    return lambda: torch.randint(0, codebook_size, (1, num_codebooks, tokens), generator=source)


def drawn(shares, tokens):
    source = torch.Generator().manual_seed(0)
    return lambda: torch.multinomial(shares, tokens, True, generator=source)[None, None]


def one_code(num_codebooks=1):
    return lambda: torch.zeros(1, num_codebooks, 640, dtype=torch.long)


# ------------------------------------------------------------------------------------------ figures


def test_figures_by_hand_for_codebooks_of_two_sizes():
    counts = [torch.tensor([5, 5, 0, 0]), torch.tensor([3, 3])]
    figures = code_figures(counts)
    assert (figures["usage/0"], figures["usage/1"], figures["usage"]) == (0.5, 1.0, 0.75)
    assert figures["perplexity"] == pytest.approx(2.0) and figures["dead_codes"] == 2
    assert (figures["code_entropy/0"], figures["code_entropy/1"]) == pytest.approx((0.5, 1.0))
    assert not any("/" in name for name in code_figures(counts[:1]))
    many = code_figures([torch.ones(4, dtype=torch.long)] * 20)
    assert "usage/7" in many and "usage/8" not in many


def test_commitment_ratio_by_hand_and_padding_is_not_counted():
    quantizer = vq(2)
    quantizer.codebook.copy_(
        torch.tensor([[0.0] * 4, [2.0] * 4])
    )  # variance 1 where both are used alike
    guard = guard_of(quantizer)
    feed(
        guard, lambda: torch.tensor([[[0, 1, -1, -1, -1]]]), move=False, **{"loss/commitment": 0.3}
    )
    assert guard.figures["commitment_ratio"] == pytest.approx(0.3)
    assert guard.figures["commitment_to_reconstruction"] == pytest.approx(0.25 * 0.3)
    assert (
        guard.figures["perplexity"] == pytest.approx(2.0) and int(guard.window.sum()) == 2 * WINDOW
    )


def test_off_is_understood_as_yaml_reads_it_and_survives_a_dump():
    settings = config.load("emoji", ["train.guard=off"], Config)
    assert settings.train.guard == "off"
    assert config.from_tree(yaml.safe_load(config.dump(settings)), "settings", Config) == settings


def test_the_window_slides():
    guard = guard_of(vq(), "off")
    assert feed(guard, uniform(64), WINDOW - 1) == [] and guard.figures == {}
    feed(guard, uniform(64), 1, WINDOW - 1)
    assert guard.figures["usage"] == 1.0
    feed(guard, one_code(), WINDOW - SLICE, WINDOW)
    assert guard.figures["usage"] == 1.0 and guard.figures["code_entropy"] < 0.5
    feed(guard, one_code(), SLICE, 2 * WINDOW - SLICE)
    assert guard.figures["usage"] == 1 / 64 and guard.figures["code_entropy"] == 0.0


# ---------------------------------------------------------------------------------------- judgement


@pytest.mark.parametrize("codebook_size", [64, 16384, 262144])
def test_uniform_draws_never_alarm_however_few_for_the_codebook(codebook_size):
    guard = guard_of(vq(codebook_size))
    assert feed(guard, uniform(codebook_size), 2 * WINDOW) == []
    assert guard.figures["usage"] == pytest.approx(
        reachable_usage(640 * WINDOW, codebook_size), rel=0.02
    )


@pytest.mark.parametrize("codebook_size", [64, 262144])
def test_collapse_is_said_once_and_its_end_too(codebook_size):
    guard = guard_of(vq(codebook_size), "warn")
    events = feed(guard, one_code(), 3 * WINDOW)
    assert [(step, level) for step, level, _ in events] == [(WINDOW, "warning")]
    assert f"1 of {codebook_size} codes" in events[0][2] and "dead: 1, 2, 3" in events[0][2]
    events = feed(guard, uniform(codebook_size), 2 * WINDOW, 3 * WINDOW)
    assert [level for _, level, _ in events] == ["recovered"]


def test_falling_usage_is_found_while_it_is_still_high():
    guard = guard_of(vq(), "warn")
    assert feed(guard, uniform(64)) == []
    events = feed(guard, uniform(45), 2 * WINDOW, WINDOW)
    assert [level for _, level, _ in events] == [
        "warning"
    ] and "is losing codes: 45 of 64" in events[0][2]


def test_codes_that_are_alive_are_estimated_from_those_seen_once_and_twice():
    # 2 seen often, 3 twice, 4 once: 9 + 4 * 3 / (2 * (3 + 1)).
    assert num_alive(torch.tensor([9, 5, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0])) == 9 + 12 / 8
    # Nothing was seen once: there is nothing else.
    assert num_alive(torch.tensor([90, 50, 0, 0])) == 2


@pytest.mark.parametrize("num_alive, is_well", [(1024, True), (100, False)])
def test_codes_of_very_unlike_frequencies_are_no_collapse(num_alive, is_well):
    """As those of the last stages of sound are: most of it is close to silence."""
    guard = guard_of(vq(1024), "warn")
    events = feed(guard, drawn(1 / torch.arange(1, num_alive + 1) ** 1.3, 50))
    assert guard.figures["usage"] < 0.5
    assert bool(events) != is_well


def test_fewer_codes_that_are_used_more_evenly_are_no_loss():
    guard = guard_of(vq(), "warn")
    shares = torch.full((64,), 1e-2)
    shares[0] = 1.0
    assert feed(guard, drawn(shares, 640)) == []
    assert feed(guard, uniform(45), 2 * WINDOW, WINDOW) == []


def test_usage_that_rises_from_nothing_is_left_alone():
    guard, events = guard_of(vq()), []
    for index, reached in enumerate([2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 28, 36, 46, 58, 64]):
        events += feed(guard, uniform(reached), SLICE, index * SLICE)
    assert events == []


def test_a_shared_codebook_is_alive_if_any_stage_uses_its_codes():
    stage = VQConfig(codebook_size=64, code_dim=4)
    for shared, levels in ((True, []), (False, ["warning"])):
        quantizer = build_quantizer(
            ResidualConfig(stage=stage, num_stages=2, shared_codebook=shared)
        )
        draw = uniform(30, num_codebooks=2)
        guard = guard_of(quantizer, "warn")
        found = feed(guard, lambda draw=draw: draw() + torch.tensor([0, 34])[:, None])
        assert [level for _, level, _ in found] == levels


def test_latents_that_run_away_from_the_codes_lower_the_commitment_weight():
    guard = guard_of(vq())
    assert (
        feed(guard, uniform(64), **{"loss/commitment": 20.0}) == []
    )  # high once is not yet rising
    events = feed(guard, uniform(64), SLICE, WINDOW, **{"loss/commitment": 90.0})
    assert [level for _, level, _ in events] == ["action"] and "run away" in events[0][2]
    assert guard.remedies.factors["commitment"] == pytest.approx(0.3)


def test_a_stage_that_is_always_dropped_is_no_collapse():
    stage = VQConfig(codebook_size=64, code_dim=4)
    guard = guard_of(build_quantizer(ResidualConfig(stage=stage, num_stages=2)))
    draw = uniform(64, num_codebooks=2)

    def dropped():
        codes = draw()
        codes[:, 1] = -1
        return codes

    assert feed(guard, dropped, 2 * WINDOW) == []


# ---------------------------------------------------------------------- codebooks that cannot learn


@pytest.mark.parametrize("mode", ["warn", "act"])
def test_a_codebook_that_never_moves_is_an_error(mode):
    guard = guard_of(vq(update="gradient"), mode)
    with pytest.raises(
        BrokenCodebook,
        match="codebook 0 received neither a gradient nor a moving average in 50 steps",
    ):
        feed(guard, uniform(64), 110, move=False)


def test_what_cannot_or_need_not_move_is_no_error():
    assert feed(guard_of(vq(), "off"), uniform(64), 110, move=False) == []
    assert feed(guard_of(vq()), uniform(64), 110, move=False, lr=1e-9) == []
    assert feed(guard_of(build_quantizer(FSQConfig(levels=(8, 8)))), uniform(64), 110) == []


def test_a_single_changed_bit_shows_in_the_fingerprint():
    quantizer = vq(16)
    before, size = fingerprint(quantizer)
    assert size == pytest.approx(float(quantizer.codebook.square().mean().sqrt()))
    quantizer.codebook[3, 2] = torch.nextafter(quantizer.codebook[3, 2], torch.tensor(math.inf))
    changed = (fingerprint(quantizer)[0] != before).any(1)
    assert changed.nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("difference", [0.0, 1e-4])
def test_codebooks_that_drift_apart_between_ranks_are_an_error(difference):
    """Another rank whose codebook is the same, or a little larger, stands behind the sum over
    ranks.
    """
    guard = guard_of(vq(), "warn", ranks=2)

    def total(values):
        if values.dtype != torch.float64:
            return values
        values[1] = values[0] * (1 + difference)
        return values

    guard.engine.sum = total
    if difference:
        with pytest.raises(BrokenCodebook, match="not the same on all ranks"):
            feed(guard, uniform(64), 60)
    else:
        assert feed(guard, uniform(64), 60) == []


# ----------------------------------------------------------------------------------------- remedies


def test_remedies_come_one_at_a_time_and_the_mildest_first():
    quantizer = vq()
    guard = guard_of(quantizer)
    events = feed(guard, one_code(), 4 * WINDOW)
    assert [step for step, *_ in events] == [WINDOW * index for index in (1, 2, 3, 4)]
    for (_, level, message), words in zip(
        events,
        (
            "jump towards latents",
            "k-means",
            "learning rate is now 0.2",
            "weight of commitment is now 0.3",
        ),
        strict=True,
    ):
        assert level == "action" and words in message
    assert (
        quantizer.revive_threshold == 0.1
        and int(quantizer.updates) == 0
        and quantizer.kmeans_iterations >= 10
    )
    assert (
        guard.remedies.lr_factor == pytest.approx(0.2) and guard.remedies.restarted_at == 3 * WINDOW
    )


def test_remedies_end_and_that_is_said_once():
    events = feed(guard_of(vq()), one_code(), 20 * WINDOW)
    levels = [level for _, level, _ in events]
    assert levels == ["action"] * 12 + ["warning"] and "no remedy is left" in events[-1][2]


def test_a_remedy_that_works_is_given_time():
    guard = guard_of(vq())
    feed(guard, one_code())
    events = []
    for index, reached in enumerate([2, 2, 2, 2, 3, 4, 5, 6, 8, 12, 16, 24, 40, 64, 64, 64, 64]):
        events += feed(guard, uniform(reached), SLICE, WINDOW + index * SLICE)
    assert [level for _, level, _ in events] == ["recovered"]


def test_late_in_a_run_nothing_is_set_anew():
    guard = guard_of(vq())
    feed(guard, one_code(), 5 * WINDOW, progress=0.95)
    assert set(guard.remedies.uses) == {"revival"}


def test_a_fixed_codebook_only_warns():
    guard = guard_of(build_quantizer(FSQConfig(levels=(8, 8))))
    events = feed(guard, one_code(), 3 * WINDOW)
    assert [level for _, level, _ in events] == ["warning"]


def test_collapsed_lookup_free_codes_get_a_larger_entropy_weight():
    guard = guard_of(build_quantizer(LFQConfig(bits=6)))
    events = feed(guard, one_code(), 2 * WINDOW)
    assert guard.remedies.factors["entropy"] == 3.0
    assert "entropy is now 3" in events[0][2]


def test_a_map_of_codes_is_never_set_anew():
    guard = guard_of(vq(neighbourhood=3.0, revive_threshold=0.1))
    events = feed(guard, one_code(), 3 * WINDOW)
    assert not any("k-means" in message or "jump" in message for _, _, message in events)


def test_restart_sets_codes_by_kmeans_where_they_began_at_random():
    quantizer = vq(16, kmeans_iterations=0).train()
    tokens = torch.randn(8, 4, 8, 8) + 50
    quantizer(tokens)
    assert len(quantizer.encode(tokens).unique()) == 1
    quantizer.restart()
    quantizer(tokens)
    assert len(quantizer.encode(tokens).unique()) == 16


def test_state_goes_through_json_and_back_to_the_bit():
    first, second = guard_of(vq()), guard_of(vq())
    feed(first, one_code(), 2 * WINDOW + 13)
    tensors, values = first.state()
    second.restore(tensors, json.loads(json.dumps(values)))
    second.parts[0].load_state_dict(first.parts[0].state_dict())
    assert second.parts[0].revive_threshold == first.parts[0].revive_threshold == 0.1
    draws = uniform(20), uniform(20)
    found = [
        feed(guard, draw, 2 * WINDOW, 2 * WINDOW + 13)
        for guard, draw in zip((first, second), draws, strict=True)
    ]
    assert found[0] == found[1] and found[0]
    assert first.figures == second.figures and first.memory == second.memory


# ----------------------------------------------------------------------------------- real trainings


@pytest.mark.parametrize("index", range(4))
def test_a_codebook_that_collapses_is_detected_and_cured(index):
    case = collapse.CASES[index]
    # The benchmark has the huge one, larger images, and more steps.
    case = replace(
        case,
        codebook_size=min(case.codebook_size, 4096),
        overrides=[*case.overrides, "data.image_size=[16,16]"],
    )
    # Codes that began far from every token stay there until the guard revives them: as many steps
    # as the benchmark has.
    steps = 200 if index == 0 else 100
    before, after = (collapse.run(case, guard, steps, seed=0) for guard in ("warn", "act"))
    assert before.detected and after.detected
    assert (
        "warning" in before.said[0] and "action" in after.said[0] and "recovered" in after.said[-1]
    )
    assert after.usage > 3 * before.usage and after.usage > 0.35


@pytest.mark.parametrize("guard", ["warn", "act"])
def test_a_codebook_outside_of_the_optimiser_stops_the_run(guard):
    outcome = collapse.run(collapse.CASES[4], guard, 200, seed=0)
    assert outcome.detected <= 200 and "not in the optimiser" in outcome.said[0]


def test_a_run_that_the_guard_changed_resumes_to_the_bit(tmp_path):
    """Killed between the first remedy and the recovery: window, thresholds and alarm come from the
    checkpoint.
    """
    settings = [
        *ALONE,
        "train.steps=100",
        "train.log_every=20",
        "model.quantizer.update=gradient",
        "losses.commitment=10",
    ]
    settings += ["model.quantizer.kmeans_iterations=0", "model.quantizer.revive_threshold=0"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    vqkit.train("emoji", whole, overrides=settings)

    def acted():
        checkpoint = find_checkpoint(broken)
        return checkpoint is not None and checkpoint.name >= "step-000000040"

    process = start(["-m", "vqkit", "train", "emoji", "--out", broken, *settings])
    wait_for(acted, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = load_checkpoint(find_checkpoint(broken))[1]
    assert kept["guard"]["remedies"]["parts"] == {"0": [0.1, 0]} and kept["step"] < 100
    assert vqkit.train("emoji", broken, resume=True) is not None
    assert_same_weights(whole / "model.safetensors", broken / "model.safetensors")
    assert events(whole) == events(broken) and "action" in str(events(whole))


def events(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "message" in row]
