import dataclasses
import os

import numpy as np
import pytest

from vqkit.report.page import render, write_report
from vqkit.report.summary import Ranked
from vqkit.report.tables import Row, headline

from .pages import Page, assert_escaped, assert_sound
from .summaries import EVIL, history, images, summary


def test_the_file_is_self_contained(tmp_path):
    path = tmp_path / "run" / "report.html"
    path.parent.mkdir()
    path.write_text("old")
    write_report(summary(), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"], (
        "no temporary file is left"
    )
    assert_sound(path.read_text(encoding="utf-8"))


def test_a_failed_write_leaves_the_old_report(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(ValueError, match="cannot pair"):
        write_report(summary(reconstructions=images(3)[1]), path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_hold_the_right_pixels(channels):
    originals, reconstructions = images(channels=channels)
    ranked = Ranked(["w"], [1.0], originals[:1], reconstructions[:1])
    page = Page(render(summary(channels=channels, worst=ranked, best=Ranked())))
    for kind, expected in (("a", originals), ("b", reconstructions)):
        found = [np.asarray(picture).reshape(8, 8, channels) for picture in page.pictures(kind)]
        np.testing.assert_array_equal(found, [*expected, expected[0]])


def test_strings_are_escaped():
    originals, reconstructions = images()
    text = render(
        summary(
            title=EVIL,
            command=EVIL,
            config_yaml=EVIL,
            names=[EVIL] * 9,
            data={EVIL: EVIL, "bad_files": {EVIL: EVIL}},
            events=[{"step": EVIL, "level": "warning", "message": EVIL}],
            metrics={EVIL: EVIL, "split": EVIL},
            history=[
                {"step": 1, "split": "train", "loss": 1.0, f"loss/{EVIL}": 1.0, "loss/$x": 2.0}
            ],
            worst=Ranked([EVIL], [1.0], originals[:1], reconstructions[:1]),
        )
    )
    assert_escaped(text)
    assert "onerror=alert(1)" in Page(text).text


def test_names_of_files_that_are_no_text_are_shown_with_escapes(tmp_path):
    write_report(
        dataclasses.replace(summary(), title=os.fsdecode(b"caf\xe9")), tmp_path / "report.html"
    )
    assert "caf\\udce9" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_is_missing_is_left_out():
    bare = render(
        summary(
            history=(),
            events=(),
            code_counts=None,
            metrics={},
            data={},
            worst=Ranked(),
            best=Ranked(),
            psnr_per_image=np.zeros(0),
            names=(),
        )
    )
    assert (
        "<svg" not in bare
        and 'id="training"' not in bare
        and 'id="codes"' not in bare
        and 'id="data"' not in bare
    )
    originals = np.zeros((0, 8, 8, 3), np.uint8)
    assert 'id="gallery"' not in render(summary(originals=originals, reconstructions=originals))


def test_everything_asked_for_is_there():
    words = Page(render(summary(data={"bad_files": [("broken.png", "file is truncated")]}))).text
    figures = (
        "every code is used, 26.4 dB at 441 bits per image.",
        "1 min 23 s",
        "1.23 M",
        "20.0 dB",
    )
    texts = (
        "broken.png",
        "file is truncated",
        "began",
        "vqkit train images --out run",
        "seed: 0  # of all",
    )
    for expected in figures + texts:
        assert expected in words


@pytest.mark.parametrize(
    "counts", [np.array([[3, 0]]), np.full((4, 2048), 7), np.ones((1, 262144), np.int64)]
)
def test_codebooks_of_any_size(counts):
    page = Page(render(summary(code_counts=counts)))
    assert sum(
        "usage of every code" in (attributes.get("alt") or "") for _, attributes in page.tags
    ) == len(counts)


def test_tiles_say_what_files_take_and_how_few_pictures_usage_is_of():
    metrics = {
        "bits_per_item": 8192,
        "rates": {"full": {"bits": 2842.7, "psnr": 34.9}},
        "usage": 0.23,
        "items": 3,
    }
    assert headline(metrics) == [
        Row("Usage", "23", "% in 3 images"),
        Row("Bits per image", "8,192", "2,843 in files"),
    ]


def test_large_pictures_are_limited():
    originals = np.zeros((12, 1024, 1024, 3), np.uint8)
    page = Page(
        render(
            summary(originals=originals, reconstructions=originals, worst=Ranked(), best=Ranked())
        )
    )
    assert len(page.pictures("a")) == 4 and "4 of 12 examples" in page.text


def test_of_many_texts_a_few_are_shown():
    originals, reconstructions = images(30)
    read = [
        ((("same", False), (f"text{n}", True)), (("same", False), ("x", True))) for n in range(30)
    ]
    found = render(
        summary(
            originals=originals,
            reconstructions=reconstructions,
            read=read,
            best=Ranked(),
            worst=Ranked(),
        )
    )
    assert "12 of 30 examples" in found
    assert "text11" in found and "text12" not in found


def test_same_results_same_page():
    assert render(summary()) == render(dataclasses.replace(summary()))


def test_codebooks_of_two_sizes_have_no_common_bound():
    """A line at the size of one of them would cut the curve of their mean off."""
    one, two = (
        render(summary(code_counts=counts))
        for counts in ([np.ones(16)], [np.ones(16), np.ones(256)])
    )
    assert "16 codes, all used alike" in one and "of 16" in one
    assert "16 codes, all" not in two and "256 codes, all" not in two and "of 256" not in two


def test_an_adversarial_stage_has_its_curves_and_other_runs_have_none_of_them():
    titles = ["Patches that the discriminator tells right", "Weight of the adversary"]
    without = render(summary())
    assert not any(title in without for title in titles)
    rows = history()
    for row in rows:
        if row["split"] == "train" and row["step"] > 500:
            row["adversary/accuracy_pairs"] = 0.6
            row["adversary/weight"] = row["step"] / 1000
            row["adversary/gradient_ratio"] = 0.5
    stage = {"in_use": "after", "began_at": 500, "ended_at": 1000, "weight_factor": 1.0}
    page = render(summary(history=rows, metrics={**summary().metrics, "adversary": stage}))
    assert all(title in page for title in titles)
    assert "steps 500 to 1,000, weights from after it" in page
    assert "The weights from after the adversarial stage are in use." in page
    assert ">chance<" in page and ">chance<" not in without
