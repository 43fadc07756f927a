"""The report of a pair: what is shown is escaped, and what is said follows from the figures."""

import numpy as np
import pytest

from vqkit.report.pair_page import (
    Direction,
    PairSummary,
    Shown,
    ShownRow,
    judge_pair,
    render_pair,
)

GOOD = {
    "split": "test",
    "items": 100,
    "saved_bits": 12.5,
    "saved_shuffled": -3.25,
    "belonging": 0.9,
    "step": 1000,
    "stopped_by": "steps",
}


def history(losses: list[float]) -> list[dict]:
    rows = []
    for number, loss in enumerate(losses, 1):
        rows.append({"step": 200 * number, "split": "train", "loss": loss, "bits/first": loss})
        rows.append({"step": 200 * number, "split": "validation", "loss": loss})
    return rows


def summary(metrics: dict = GOOD, losses: list[float] | None = None, **more) -> PairSummary:
    rows = history([3.0, 2.0, 1.9, 1.88, 1.87] if losses is None else losses)
    return PairSummary("a <b> title", "vqkit pairs", "seed: 0", metrics, rows, **more)


def test_text_of_strangers_is_escaped_and_images_are_there():
    image = Shown(image=np.full((8, 8, 3), 200, np.uint8))
    sound = Shown(image=image.image, sound=b"RIFF", media_type="audio/wav")
    hostile = Shown(text="<script>alert(1)</script> red\x1b[31m")
    rows = [ShownRow(hostile, image, [image, sound])]
    page = render_pair(summary(directions=[Direction("text", "image", rows)]))
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page and "\x1b" not in page
    assert page.count("<img src=") == 3 and page.count("<audio controls") == 1
    assert "a &lt;b&gt; title" in page and "From text to image" in page


def test_a_healthy_pair_says_what_halves_save():
    verdict = judge_pair(summary())
    assert verdict.healthy
    assert "save one another 12.5 bits, those of different pairs -3.25" in verdict.sentence


@pytest.mark.parametrize(
    ("metrics", "losses", "told"),
    [
        ({**GOOD, "belonging": 0.51}, None, "halves hardly tell anything"),
        (GOOD, [3.0, 2.0, 2.1, 2.2], "the prior over-fits"),
        ({**GOOD, "step": 12}, [3.0, 2.9], "12 steps"),
    ],
)
def test_what_speaks_against_a_pair(metrics, losses, told):
    verdict = judge_pair(summary(metrics, losses))
    assert not verdict.healthy
    words = " ".join([verdict.sentence, *(one.text for one in verdict.findings)])
    assert told in words


def test_chance_is_no_finding_where_few_pairs_are_held_out():
    assert judge_pair(summary({**GOOD, "belonging": 0.4, "items": 10})).healthy
