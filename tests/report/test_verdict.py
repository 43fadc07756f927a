import dataclasses
import math

import numpy as np
import pytest

from vqkit.report.verdict import LOSS, fall_at_end, judge

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
    verdict = judge(
        summary(code_counts=counts, metrics=changed(usage=0.625, items=400), events=events)
    )
    assert not verdict.healthy
    expected = (
        "only 62 % of the codes are used and there was a warning. "
        "Result: 26.4 dB at 441 bits per image."
    )
    assert verdict.sentence == expected
    assert "6 of 16 never do" in verdict.findings[0].text
    assert verdict.findings[1].text == "Step 7: codes died."


def test_what_a_run_recovered_from_does_not_count():
    events = [{"step": 4, "level": "warning", "message": "codes died."}]
    events += [{"step": 8, "level": "recovered", "message": "codes are back."}]
    assert judge(summary(events=events)).healthy
    assert judge(
        summary(events=[{"step": 4, "level": "action", "message": "codes revived."}])
    ).healthy
    assert not judge(summary(events=[*events, {**events[0], "step": 9}])).healthy


def test_the_weakest_codebook_decides():
    counts = np.full((3, 16), 50)
    counts[1, 4:] = 0
    verdict = judge(summary(code_counts=counts, metrics=changed(usage=0.75, items=400)))
    assert verdict.sentence.startswith("only 25 % of the codes of codebook 2 are used.")
    assert verdict.findings[0].text == (
        "25 % of the codes of codebook 2 occur in the evaluated split: 12 of 16 never do. "
        "The mean over all 3 codebooks is 75 %."
    )


@pytest.mark.parametrize(("usage", "healthy"), [(0.89, False), (0.9, True), (0.95, True)])
def test_usage_limit(usage, healthy):
    assert (
        judge(summary(code_counts=None, metrics=changed(usage=usage, items=100))).healthy is healthy
    )


def three_pictures(trained, **changes):
    """Of 1024 codes, 71 in three alike images of 256 codes; `trained` are figures of the last
    training row.
    """
    counts = np.zeros((1, 1024), np.int64)
    counts[0, :71] = 10
    rows = [*history(), {"step": 1000, "split": "train", **trained}]
    metrics = changed(usage=71 / 1024, items=3)
    return summary(code_counts=counts, metrics=metrics, history=rows, window_images=63, **changes)


def test_few_pictures_do_not_show_that_codes_are_unused():
    verdict = judge(three_pictures({"usage": 1.0}))
    assert verdict.healthy and verdict.sentence.startswith("every code is used in training, ")
    untold = dataclasses.replace(three_pictures({}), history=())
    assert judge(untold).sentence.startswith(
        "test images too few to tell how many codes are used, "
    )


def test_collapse_is_told_by_training_where_pictures_are_few():
    verdict = judge(three_pictures({"usage": 0.3}))
    assert verdict.sentence.startswith("only 30 % of the codes are used.")
    assert verdict.findings[0].text == "30 % of the codes occur in the last steps of training."
    several = {"usage": 0.6, "usage/0": 1.0, "usage/1": 0.2}
    run = dataclasses.replace(
        three_pictures(several), code_counts=[three_pictures({}).code_counts[0]] * 2
    )
    assert judge(run).sentence.startswith("only 20 % of the codes of codebook 2 are used.")


def test_codes_that_weigh_bits_are_used_unevenly_by_intention():
    def judged(used):
        counts = np.array([[50] * used + [0] * (100 - used)])
        return judge(
            summary(
                code_counts=counts, metrics=changed(usage=used / 100, items=400), weighs_bits=True
            )
        )

    assert judged(60).healthy
    assert (
        "lower the quantizer's rate" in judged(40).findings[0].advice
        and "smaller" not in judged(40).findings[0].advice
    )


def test_measured_bits_of_files_stand_beside_those_of_a_fixed_length():
    rates = {"low": {"bits": 100.0, "psnr": 20.0}, "full": {"bits": 302.4, "psnr": 26.0}}
    assert judge(summary(metrics=changed(rates=rates))).sentence.endswith(
        "at 441 bits per image, 302 in files."
    )


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


def logs(train, validation=None, **changes):
    """A run with losses.distortion=log_mse, given as mean squared errors below 1: its losses are
    negative.
    """
    validation = validation or train
    rows = history(
        lambda progress: math.log(train(progress)), lambda progress: math.log(validation(progress))
    )
    return summary(history=rows, is_log_loss=True, **changes)


def test_negative_losses_that_still_fall():
    # exp(-2 t) loses 1 - exp(-0.4) = 32.97 % over a fifth of the run
    verdict = judge(logs(lambda progress: 0.1 * math.exp(-2 * progress)))
    assert verdict.sentence.startswith("the loss is still falling")
    assert (
        verdict.findings[0].text
        == "The mean squared error fell by another 33 % in the last fifth of the run."
    )
    assert judge(logs(lambda progress: 0.01 + 0.1 * math.exp(-20 * progress))).healthy


def test_negative_validation_losses_behind_training():
    verdict = judge(
        logs(
            lambda progress: 0.01,
            lambda progress: 0.01 * 10**0.25,
            data={"splits": {"validation": 3}},
        )
    )
    assert verdict.sentence.startswith("validation is far behind training")
    assert (
        "(0.0178) is 78 % above training (0.01): 2.5 dB. With 3 validation images"
        in verdict.findings[0].text
    )
    assert judge(logs(lambda progress: 0.01, lambda progress: 0.011)).healthy


def test_negative_validation_losses_that_rose_again():
    finding = judge(
        logs(lambda progress: 0.01, lambda progress: 0.02 + 0.1 * (progress - 0.5) ** 2)
    ).findings[0]
    assert finding.short == "validation got worse again" and "lowest at step 500" in finding.text


def test_a_short_run_with_two_looks_at_validation_is_judged_by_its_last_half():
    rows = [
        {"step": 26 * half, "split": "validation", LOSS: -3.6 - 0.5 * (half - 1)} for half in (1, 2)
    ]
    metrics = changed(step=500, stopped_by="max_minutes")
    finding = judge(summary(history=rows, is_log_loss=True, metrics=metrics)).findings[0]
    assert (
        finding.text == "The mean squared error fell by another 39 % in the last half of the run."
    )
    assert finding.advice == "Train longer: raise train.max_minutes."


def test_what_a_budget_of_the_command_would_have_to_be():
    rows = [
        {"step": 26 * half, "split": "validation", LOSS: -3.6 - 0.5 * (half - 1)} for half in (1, 2)
    ]
    ended = changed(step=500, stopped_by="max_minutes")
    finding = judge(summary(history=rows, is_log_loss=True, metrics=ended, minutes=1.5)).findings[0]
    assert finding.advice == "Train longer: --minutes 3, in a new folder."
    few = judge(summary(history=[], metrics=changed(step=48, stopped_by="max_minutes"), minutes=2))
    assert few.findings[0].advice == "Train longer: --minutes 4, in a new folder."


@pytest.mark.parametrize(("last", "is_falling"), [(0.74, True), (0.76, False)])
def test_a_run_with_one_validation_pass_is_judged_by_its_training(last, is_falling):
    # From 1 about the middle to `last` in the last fifth.
    rows = [
        {"step": step, "split": "train", LOSS: 1.0 if step < 220 else last}
        for step in range(20, 301, 20)
    ]
    rows.append({"step": 300, "split": "validation", LOSS: last})
    verdict = judge(summary(history=rows, metrics=changed(step=300, stopped_by="steps")))
    told = [finding.short for finding in verdict.findings]
    assert ("the loss is still falling" in told) == is_falling


def test_patches_of_one_image_are_judged_as_one_image():
    counts = np.array([[50] * 4 + [0] * 12])
    cut = changed(usage=0.25, items=400, cut_from=1)
    verdict = judge(summary(code_counts=counts, metrics=cut))
    assert verdict.healthy and verdict.word == "Probably healthy"
    assert verdict.sentence.startswith("90.0 % of the codes are used in training")
    assert verdict.sentence.endswith(
        " One test image is too little to judge by: others may give other figures."
    )
    several = judge(summary(metrics=changed(items=400, cut_from=7)))
    assert "The 7 test images are too few to judge by" in several.sentence


def test_figures_of_training_images_are_said_to_be():
    verdict = judge(summary(metrics=changed(split="train", items=4000)))
    assert "the figures are of images that it was trained on" in verdict.sentence
    assert verdict.word == "Probably healthy"


def test_a_run_of_sixty_steps_is_not_called_finished():
    losses = [
        -1.664,
        -2.241,
        -2.465,
        -2.591,
        -2.645,
        -2.671,
    ]  # of such a run; the cosine makes it flat at the end
    rows = [
        {"step": 10 * look, "split": "validation", LOSS: loss}
        for look, loss in enumerate(losses, 1)
    ]
    verdict = judge(
        summary(history=rows, is_log_loss=True, metrics=changed(step=60, stopped_by="steps"))
    )
    assert verdict.sentence.startswith("it trained for 60 steps only.")
    assert verdict.findings[0].advice == "Train longer: train.steps=1000."
    assert judge(
        summary(history=rows, is_log_loss=True, metrics=changed(step=60, stopped_by="plateau"))
    ).healthy


def test_reconstructions_like_the_average_picture():
    originals = summary().originals
    mean = np.broadcast_to(originals.mean(axis=0), originals.shape).astype(np.uint8)
    verdict = judge(summary(reconstructions=mean))
    assert verdict.sentence.startswith("the reconstructions are no better than the average image")


def test_not_a_number():
    assert judge(summary(metrics=changed(psnr=math.nan))).sentence.startswith(
        "PSNR is not a number"
    )


def test_continuous_bottleneck_and_empty_metrics():
    metrics = {"psnr": math.inf, "usage": None, "perplexity": None, "bpp": 0.5}
    verdict = judge(summary(code_counts=None, metrics=metrics))
    assert verdict.sentence == "exact reconstruction at 0.5 bits per pixel."
    assert judge(summary(code_counts=None, metrics={}, history=())).healthy
