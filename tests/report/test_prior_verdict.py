import math

import numpy as np
import pytest

from vqkit.report.prior_verdict import derived_figures, judge_prior, near_copies

from .summaries import prior_history, prior_summary


def changed(**figures):
    return {**prior_summary().metrics, **figures}


def flat(bits):
    return lambda progress: bits


def test_healthy_prior_in_one_sentence():
    verdict = judge_prior(prior_summary())
    assert verdict.healthy and not verdict.findings
    assert verdict.sentence == (
        "3.04 bits per code (24 % saved against codes without context); "
        "no over-fit (validation is 0.06 bits above training); "
        "no sign of copying (0 of 9 samples are nearly a training image)."
    )


def test_gap_between_training_and_validation():
    verdict = judge_prior(prior_summary(history=prior_history(flat(3.0), flat(3.4))))
    assert verdict.sentence.startswith("the prior over-fits. Result: 3.04 bits")
    text = "At the end, validation costs 3.4 bits per code and training 3: 0.4 more, or 13 %."
    assert verdict.findings[0].text == text
    assert "network.dropout" in verdict.next_steps[0]


@pytest.mark.parametrize(("validation", "healthy"), [(3.14, True), (3.16, False), (2.5, True)])
def test_gap_limit_is_a_twentieth_of_training(validation, healthy):
    assert (
        judge_prior(prior_summary(history=prior_history(flat(3.0), flat(validation)))).healthy
        is healthy
    )


def rising(progress):
    """Lowest at progress 0.5 with 3.0 bits, 3.5 at the end."""
    return 3.0 + 2 * (progress - 0.5) ** 2


@pytest.mark.parametrize(("stopped_by", "kept"), [("steps", False), ("plateau", True)])
def test_validation_rose_while_training_fell(stopped_by, kept):
    # training falls by a bit over the run; means over a tenth of it: steps 400..500 -> 2.55,
    # 900..1000 -> 2.05
    rows = prior_history(lambda progress: 3.0 - progress, rising)
    verdict = judge_prior(prior_summary(history=rows, metrics=changed(stopped_by=stopped_by)))
    assert not verdict.healthy and len(verdict.findings) == 1
    text = (
        "Validation was best at step 500 (3 bits per code) and has risen to 3.5 since, "
        "while training fell from "
    )
    assert verdict.findings[0].text == text + "2.55 to 2.05: from there on it learned by heart."
    assert ("The weights of the best step were kept" in verdict.findings[0].advice) is kept
    assert ("Set train.patience" in verdict.findings[0].advice) is not kept


def test_both_rose_is_unsteady_and_no_over_fit():
    finding = judge_prior(prior_summary(history=prior_history(rising, rising))).findings[0]
    assert finding.short == "validation got worse again" and "by heart" not in finding.text
    assert "Lower train.lr" in finding.advice


def test_a_wobble_of_validation_is_no_rise():
    rows = prior_history(flat(3.0), lambda progress: 3.0 + 0.02 * (progress == 1))
    assert judge_prior(prior_summary(history=rows)).healthy


def near(distances, reconstructed):
    summary = prior_summary(
        distances=np.array(distances), reconstructed_distances=np.array(reconstructed)
    )
    return near_copies(summary).tolist()


def test_near_copies_are_nearer_than_99_of_100():
    hundred = np.arange(100.0)  # 0, 1, ... 99
    # farther than 0.5 are 99 of them, than 1 (itself not counted) 98, than 0 99, than -1 all
    assert near([0.5, 1.0, 0.0, -1.0, 98.5], hundred) == [True, False, True, True, False]
    # with ten, all must be farther
    assert near([4.9, 5.0], np.arange(5.0, 15.0)) == [True, False]
    assert near([0.0, 1.0], []) == [False, False], "no yardstick, no blame"


def test_the_yardstick_is_reconstructions_and_not_images_as_they_are():
    """Samples as near as reconstructions are, where images as they are stay farther away."""
    usual = np.arange(20.0, 120.0)
    summary = prior_summary(
        reconstructed_distances=usual, held_out_distances=usual + 60, distances=usual[10:19]
    )
    assert derived_figures(summary)["memorised"] == 0 and judge_prior(summary).healthy


def test_derived_figures_by_hand():
    distances = np.array([50.0, 3.0, 51.0, 2.0, 52.0, 1.0, 53.0, 54.0, 55.0])
    found = derived_figures(
        prior_summary(distances=distances, history=prior_history(flat(3.0), flat(3.25)))
    )
    assert found == {"memorised": pytest.approx(1 / 3), "overfit_bits": pytest.approx(0.25)}
    found = derived_figures(prior_summary(reconstructed_distances=np.zeros(0), history=()))
    assert found == {"memorised": None, "overfit_bits": None}


def test_one_in_a_hundred_of_the_same_kind_is_near():
    generator = np.random.default_rng(0)
    found = near(generator.normal(50, 10, 20000), generator.normal(50, 10, 20000))
    assert np.mean(found) == pytest.approx(0.01, abs=0.004)


def test_memorised_samples():
    distances = np.array([50.0, 3.0, 51.0, 2.0, 52.0, 1.0, 53.0, 54.0, 55.0])
    verdict = judge_prior(prior_summary(distances=distances))
    assert verdict.sentence.startswith("samples are close to copies of training images.")
    text = (
        "3 of 9 samples are nearer to a training image than all but one in a hundred "
        "reconstructed held-out images"
    )
    assert verdict.findings[0].text == f"{text}; by chance it would be 1."


@pytest.mark.parametrize(
    ("num", "near", "healthy"), [(64, 3, True), (64, 4, False), (9, 1, True), (9, 2, False)]
)
def test_some_near_copies_are_chance(num, near, healthy):
    # 3 of 64 = 4.7 %, 4 of 64 = 6.25 %; a single one is never a pattern
    distances = np.full(num, 60.0)
    distances[:near] = 1.0
    samples = np.zeros((num, 8, 8, 3), np.uint8)
    summary = prior_summary(
        samples=samples, nearest=samples, scattered=samples, labels=(), distances=distances
    )
    assert judge_prior(summary).healthy is healthy


def test_duplicates_blunt_the_yardstick():
    held_out = np.concatenate([np.zeros(10), np.arange(20.0, 110.0)])
    verdict = judge_prior(prior_summary(held_out_distances=held_out))
    assert verdict.sentence.startswith("held-out images are among the training images.")
    assert verdict.findings[0].text.startswith("10 % of the held-out images")
    assert judge_prior(
        prior_summary(held_out_distances=np.array([0.0, *np.arange(20.0, 119.0)]))
    ).healthy


@pytest.mark.parametrize(
    ("saving", "words"), [(0.01, "only 1.0 % of the bits"), (0.0, "nothing"), (-0.1, "nothing")]
)
def test_a_prior_that_predicts_nothing(saving, words):
    verdict = judge_prior(prior_summary(metrics=changed(saving_vs_order0=saving)))
    assert verdict.sentence == "the prior hardly predicts anything. Result: 3.04 bits per code."
    assert verdict.findings[0].text.endswith(f"it saves {words}.")


@pytest.mark.parametrize(
    ("stopped_by", "advice"), [("steps", "train.steps=2000."), ("max_minutes", "raise train.max_m")]
)
def test_still_falling(stopped_by, advice):
    # exp(-t / 2) loses 1 - exp(-0.1) = 9.5 % over a fifth of the run
    rows = prior_history(
        lambda progress: 5 * math.exp(-progress / 2), lambda progress: 5 * math.exp(-progress / 2)
    )
    finding = judge_prior(
        prior_summary(history=rows, metrics=changed(stopped_by=stopped_by))
    ).findings[0]
    assert finding.text == "Bits per code fell by another 9.5 % in the last fifth of the run."
    assert advice in finding.advice


def test_a_prior_of_a_few_steps_is_not_called_healthy():
    rows = [
        {"step": step, "split": "validation", "bits_per_code": bits}
        for step, bits in ((25, 6.653), (47, 6.293))
    ]
    verdict = judge_prior(
        prior_summary(history=rows, metrics=changed(step=47, stopped_by="max_minutes"))
    )
    assert verdict.sentence.startswith("it trained for 47 steps only.")
    assert verdict.next_steps[0] == "Train longer: raise train.max_minutes."


def test_not_a_number_and_warnings():
    events = [{"step": 7, "level": "warning", "message": "loss jumped."}]
    verdict = judge_prior(prior_summary(metrics=changed(bits_per_code=math.nan), events=events))
    assert verdict.sentence == "bits per code is not a number and there was a warning."


def test_nothing_measured_is_nothing_to_blame():
    none = np.zeros(0)
    verdict = judge_prior(
        prior_summary(
            metrics={},
            history=(),
            events=(),
            distances=none,
            reconstructed_distances=none,
            held_out_distances=none,
        )
    )
    assert verdict.healthy and verdict.sentence == "nothing to report."


def test_too_few_images_to_judge_by_are_said():
    figures = {**prior_summary().metrics, "split": "test"}
    for images, word in ((19, "Probably healthy"), (20, "Healthy")):
        verdict = judge_prior(prior_summary(metrics={**figures, "items": images}))
        assert verdict.word == word
        assert ("The 19 test images are too few to judge by" in verdict.sentence) == (images == 19)
