import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from vqkit.report import figures

from .summaries import history, prior_history

EVENTS = [
    {"step": 40, "level": "warning", "message": "w"},
    {"step": 60, "level": "info", "message": "i"},
]


def check(drawing):
    """The SVG is well-formed, carries no address and no fixed colour."""
    assert drawing is not None
    ElementTree.fromstring(drawing.svg)
    assert "http" not in drawing.svg and "xlink" not in drawing.svg
    assert not re.findall(r"#[0-9a-fA-F]{6}\b", drawing.svg), "every colour is a CSS variable"
    return drawing


def test_every_loss_term_has_its_curve():
    drawing = check(figures.svg("loss", figures.loss(history(), EVENTS)))
    assert [key.label for key in drawing.keys] == ["total", "reconstruction", "commitment"]
    assert [key.colour for key in drawing.keys] == ["--ink", "--series-0", "--series-1"]
    assert "var(--alert)" in drawing.svg


def test_one_term_is_not_drawn_twice():
    rows = [
        {key: value for key, value in row.items() if key != "loss/commitment"} for row in history()
    ]
    assert not check(figures.svg("loss", figures.loss(rows))).keys


def test_changing_weights_are_drawn_as_shares_of_their_highest_and_named_even_alone():
    rows = [
        row | {"weight/kl": 0.01 * row["step"] / 1000}
        for row in history()
        if row["split"] == "train"
    ]
    drawing = check(figures.svg("weights", figures.weights(rows)))
    assert [key.label for key in drawing.keys] == ["kl, up to 0.01"]
    both = [row | {"weight/transform": 3.0} for row in rows]
    assert [key.label for key in check(figures.svg("two", figures.weights(both))).keys] == [
        "kl, up to 0.01",
        "transform, up to 3",
    ]


@pytest.mark.parametrize(
    "draw",
    [
        figures.loss([]),
        figures.loss([{"step": 1, "split": "train", "loss": float("nan")}]),
        figures.over_steps(history(), {"lr": "learning rate"}),
        figures.code_usage(None),
        figures.code_usage(np.zeros((1, 16), np.int64)),
        figures.code_usage(np.zeros((0, 0), np.int64)),
        figures.weights(history()),
        figures.quality_histogram(np.zeros(0), "dB"),
        figures.quality_histogram(np.full(3, np.inf), "dB"),
    ],
)
def test_nothing_to_draw(draw):
    assert figures.svg("none", draw) is None
    assert figures.png({"none": draw}) is None


def test_histories_of_odd_shape():
    one = [
        {
            "step": 5,
            "split": "train",
            "loss": 0.5,
            "loss/a$b$<i>": 0.0,
            "usage": 0.25,
            "perplexity": 3,
        }
    ]
    check(figures.svg("one", figures.loss(one, EVENTS)))
    check(figures.svg("usage", figures.over_steps(one, {"usage": "usage"}, percent=True)))
    check(
        figures.svg("level", figures.over_steps(one, {"perplexity": "perplexity"}, level=(4, "4")))
    )
    check(
        figures.svg(
            "high", figures.over_steps(one, {"perplexity": "perplexity"}, level=(262144, "many"))
        )
    )
    check(
        figures.svg(
            "validation", figures.loss([row for row in history() if row["split"] == "validation"])
        )
    )
    unordered = [{"step": step, "split": "train", "loss": -1.0 * step} for step in (3, 1, 2)]
    check(figures.svg("negative", figures.loss(unordered)))


@pytest.mark.parametrize(("books", "size"), [(1, 2), (1, 512), (4, 64), (8, 16), (1, 262144)])
def test_code_usage(books, size):
    counts = np.random.default_rng(0).poisson(2.0, (books, size))
    counts[:, 0] = 9
    drawing = check(figures.svg("codes", figures.code_usage(counts)))
    assert len(drawing.svg) < 120_000
    if books == 1:
        assert drawing.keys[0].label == f"{int((counts == 0).sum()):,} dead"
    assert drawing.keys[-1].label == "uniform" and drawing.keys[-1].dashed


def test_a_histogram_marks_mean_and_median():
    drawing = check(
        figures.svg("psnr", figures.quality_histogram(np.array([20.0, 21.0, 28.0, np.inf]), "dB"))
    )
    assert [key.label for key in drawing.keys] == ["mean 23.0 dB", "median 21.0 dB"]
    check(figures.svg("same", figures.quality_histogram(np.full(5, 30.0), "dB")))


def test_long_histories_are_thinned_to_means():
    steps, values = figures.thinned(np.arange(4000.0), np.arange(4000.0))
    assert len(steps) == figures.MAX_POINTS
    assert (
        values[0] == 0 and values[-1] == 3999 and values[1] == np.arange(10, 20).mean() == steps[1]
    )


def test_matplotlib_is_imported_late():
    code = (
        "import sys, vqkit.report\n"
        "assert not {'matplotlib', 'jinja2', 'torch'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bits_per_code_against_no_context():
    rows = prior_history(lambda progress: 3 + 40 * (progress < 0.03), lambda progress: 3.2)
    drawing = check(figures.svg("bits", figures.bits_per_code(rows, EVENTS, 4.0)))
    assert [key.label for key in drawing.keys] == [
        "in order",
        "in random orders",
        "without context",
    ]
    assert [key.dashed for key in drawing.keys] == [False, False, True]
    assert ">40<" not in drawing.svg, "the first steps do not squeeze the rest"
    assert figures.svg("none", figures.bits_per_code(history(), order0_bits=4.0)) is None
    check(
        figures.svg(
            "one", figures.bits_per_code([{"step": 1, "split": "train", "bits_per_code": 0.0}])
        )
    )
