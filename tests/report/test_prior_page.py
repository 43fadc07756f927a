import re

import numpy as np
import pytest

from vqkit.report.prior_page import MAX_PAIRS, render_prior, write_prior_report

from .pages import Page, assert_escaped, assert_sound
from .summaries import EVIL, images, prior_summary


def words(text):
    return " ".join(Page(text).text.split())


def test_the_file_is_self_contained(tmp_path):
    path = tmp_path / "prior" / "report.html"
    write_prior_report(prior_summary(), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    assert_sound(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_hold_the_right_pixels_and_pairs_come_nearest_first(channels):
    summary = prior_summary(channels=channels)  # distances fall from 58 to 50
    page = Page(render_prior(summary))
    expected = {"samples": summary.samples, "scattered": summary.scattered}
    expected |= {"a": summary.samples[::-1], "b": summary.nearest[::-1]}
    for kind, pixels in expected.items():
        found = [np.asarray(picture).reshape(8, 8, channels) for picture in page.pictures(kind)]
        np.testing.assert_array_equal(found, pixels)
    shown = re.findall(r"(\d+\.0) class (\d)", page.text)
    assert shown == [(f"{50 + index}.0", str(8 - index)) for index in range(9)], (
        "label and distance go with the pair"
    )


def test_near_copies_are_marked():
    distances = np.array([50.0, 3.0, 51.0, 2.0, 52.0, 53.0, 53.0, 54.0, 55.0])
    text = render_prior(prior_summary(distances=distances))
    assert re.findall(r'class="pair( copy)?">', text) == [" copy"] * 2 + [""] * 7
    # 0.99 quantile of 20, 21, ... 119 from the near end: 20.99; the median 69.5
    assert "1 of 100 is nearer than 21.0, half are nearer than 69.5" in words(text)
    assert "<dt>Near copies</dt><dd>22<small>%</small></dd>" in text


def test_strings_are_escaped():
    text = render_prior(
        prior_summary(
            title=EVIL,
            command=EVIL,
            config_yaml=EVIL,
            labels=[EVIL] * 9,
            metrics={EVIL: EVIL, "split": EVIL},
            events=[{"step": EVIL, "level": "warning", "message": EVIL}],
        )
    )
    assert_escaped(text)
    assert Page(text).text.count(EVIL) >= 27, (
        "samples, scattered and pairs are labelled as they are"
    )


def test_what_is_missing_is_left_out():
    none, nothing = np.zeros(0), np.zeros((0, 8, 8, 3), np.uint8)
    bare = render_prior(
        prior_summary(
            metrics={},
            history=(),
            events=(),
            samples=nothing,
            scattered=nothing,
            labels=(),
            nearest=nothing,
            distances=none,
            reconstructed_distances=none,
        )
    )
    for name in ("samples", "scattered", "neighbours", "training", "figures"):
        assert f'id="{name}"' not in bare
    assert "<svg" not in bare and 'id="reproduce"' in bare
    plain = render_prior(prior_summary(labels=(), reconstructed_distances=none))
    assert (
        "Held-out" not in plain and "Near copies" not in plain and "figcaption title" not in plain
    )


def test_everything_asked_for_is_there():
    text = render_prior(prior_summary())
    expected = (
        "no over-fit",
        "In 12 steps",
        "24 %",
        "1 min 23 s",
        "1.23 M",
        "began",
        "vqkit train-prior run images",
        "seed: 0 # of all",
        "in random orders",
        "without context",
        "Learning rate",
        "Norm of the gradient",
    )
    for part in expected:
        assert part in words(text)
    assert "In 1 step<" in render_prior(prior_summary(num_steps=1))


@pytest.mark.parametrize(("num", "side", "pairs"), [(100, 8, MAX_PAIRS), (30, 512, 24)])
def test_pictures_are_limited_but_at_least_24(num, side, pairs):
    pixels = np.zeros((num, side, side, 3), np.uint8)
    page = Page(
        render_prior(
            prior_summary(
                samples=pixels,
                scattered=pixels,
                nearest=pixels,
                labels=(),
                distances=np.arange(num) + 50.0,
            )
        )
    )
    assert len(page.pictures("a")) == len(page.pictures("b")) == pairs
    assert f"Nearest first, {pairs} of {num}" in page.text


def test_captions_wrap_and_are_not_cut():
    text = render_prior(prior_summary())
    rule = ".one figcaption, #neighbours figcaption { white-space: normal;"
    assert 0 < text.index(".pair figcaption {") < text.index(rule), "the later rule wins"


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="cannot pair"):
        render_prior(prior_summary(nearest=images(3)[1]))
    with pytest.raises(ValueError, match="cannot pair"):
        render_prior(prior_summary(distances=np.zeros(8)))
    with pytest.raises(ValueError, match="as many labels"):
        render_prior(prior_summary(labels=["one"]))
