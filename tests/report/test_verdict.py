import math

import numpy as np
import pytest

from vqkit.report.verdict import fall_at_end, judge

from .summaries import history, summary


def changed(**figures):
    return {**summary().metrics, **figures}


def test_healthy_run_in_one_sentence():
    verdict = judge(summary())
    assert verdict.healthy
    assert verdict.sentence == "every code is used, 26.4 dB at 441 bits per image."


def test_low_usage_comes_first_and_counts_the_dead():
    counts = np.array([[50] * 10 + [0] * 6])
    events = [{"step": 7, "level": "warning", "message": "codes died."}]
    verdict = judge(summary(code_counts=counts, metrics=changed(usage=0.625), events=events))
    assert not verdict.healthy
    expected = "only 62 % of the codes are used and there was a warning. Result: 26.4 dB at 441 bits per image."
    assert verdict.sentence == expected
    assert "6 of 16 never do" in verdict.findings[0].text
    assert verdict.findings[1].text == "Step 7: codes died."


def test_what_a_run_recovered_from_does_not_count():
    events = [{"step": 4, "level": "warning", "message": "codes died."}]
    events += [{"step": 8, "level": "recovered", "message": "codes are back."}]
    assert judge(summary(events=events)).healthy
    assert judge(summary(events=[{"step": 4, "level": "action", "message": "codes revived."}])).healthy
    assert not judge(summary(events=[*events, {**events[0], "step": 9}])).healthy


def test_the_weakest_codebook_decides():
    counts = np.full((3, 16), 50)
    counts[1, 4:] = 0
    verdict = judge(summary(code_counts=counts, metrics=changed(usage=0.95)))
    assert verdict.sentence.startswith("only 25 % of the codes")
    assert "(codebooks 2)" in verdict.findings[0].text


@pytest.mark.parametrize(("usage", "healthy"), [(0.89, False), (0.9, True), (0.95, True)])
def test_usage_limit(usage, healthy):
    assert judge(summary(code_counts=None, metrics=changed(usage=usage))).healthy is healthy


def test_a_split_too_small_to_show_every_code_is_not_blamed():
    counts = np.zeros((1, 4096), np.int64)
    counts[0, :620] = 1  # 620 draws of 4096 codes reach 1 - exp(-620 / 4096) = 14.05 % at most
    verdict = judge(summary(code_counts=counts, metrics=changed(usage=620 / 4096)))
    assert verdict.healthy and "as many as a split this small can show" in verdict.sentence


def test_fall_at_end_of_an_exponential():
    # exp(-2 t) loses 1 - exp(-0.4) = 32.97 % over a fifth of the run
    rows = history(lambda progress: math.exp(-2 * progress))
    assert fall_at_end(rows) == pytest.approx(1 - math.exp(-0.4), rel=1e-6)
    verdict = judge(summary(history=rows))
    assert verdict.sentence.startswith("the loss is still falling")
    assert verdict.findings[0].advice == "Train longer: train.steps=2000."


def test_noise_is_no_fall():
    generator = np.random.default_rng(0)
    assert fall_at_end(history(lambda progress: 1 + 0.3 * generator.random())) is None


def test_gap_between_training_and_validation():
    verdict = judge(summary(history=history(lambda progress: 0.1, lambda progress: 0.13)))
    assert verdict.sentence.startswith("validation is far behind training")
    assert "(0.13) is 30 % above training (0.1)" in verdict.findings[0].text
    assert judge(summary(history=history(lambda progress: 0.1, lambda progress: 0.11))).healthy


def test_validation_that_got_worse_again():
    rows = history(lambda progress: 0.1, lambda progress: 0.2 + (progress - 0.5) ** 2)
    finding = judge(summary(history=rows)).findings[0]
    assert finding.short == "validation got worse again" and "lowest at step 500" in finding.text


def test_reconstructions_like_the_average_picture():
    originals = summary().originals
    mean = np.broadcast_to(originals.mean(axis=0), originals.shape).astype(np.uint8)
    verdict = judge(summary(reconstructions=mean))
    assert verdict.sentence.startswith("the reconstructions are no better than the average picture")


def test_not_a_number():
    assert judge(summary(metrics=changed(psnr=math.nan))).sentence.startswith("PSNR is not a number")


def test_continuous_bottleneck_and_empty_metrics():
    metrics = {"psnr": math.inf, "usage": None, "perplexity": None, "bpp": 0.5}
    verdict = judge(summary(code_counts=None, metrics=metrics))
    assert verdict.sentence == "no codes to count, exact reconstruction at 0.5 bits per pixel."
    assert judge(summary(code_counts=None, metrics={}, history=())).healthy
