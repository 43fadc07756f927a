import math

import numpy as np
import pytest

from vqkit.report.tables import bad_files, data_rows, metric_rows, plain
from vqkit.report.wording import decibel, duration, finite, large, number, share


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (share(1), "100 %"),
        (share(0.99999), "99.9 %"),
        (share(0), "0 %"),
        (share(1e-6), "< 0.1 %"),
        (share(0.623), "62 %"),
        (share(0.9234), "92.3 %"),
        (number(0.0123456), "0.0123"),
        (number(1234.6), "1,235"),
        (number(math.nan), "not a number"),
        (number(0), "0"),
        (number(2e-7), "2.0e-07"),
        (decibel(26.44), "26.4 dB"),
        (decibel(math.inf), "exact"),
        (duration(83.4), "1 min 23 s"),
        (duration(0.5), "0.5 s"),
        (duration(7300), "2 h 1 min"),
        (large(1_234_567), "1.23 M"),
        (large(12), "12"),
        (plain([1, 2.5, None]), "1, 2.5, none"),
        (plain(np.float32(0.5)), "0.5"),
        (plain({}), "none"),
        (number("1"), "1"),
    ],
)
def test_numbers_as_people_read_them(text, expected):
    assert text == expected


def test_finite():
    assert finite(np.float64(2)) == 2.0
    assert [finite(value) for value in (None, "3", True, math.nan, math.inf, [1])] == [None] * 6


def test_metrics_keep_unknown_figures_and_drop_what_does_not_apply():
    rows = metric_rows({"own_figure": 0.12345, "usage": None, "psnr": 30.0, "ssim": "odd"})
    assert [(row.label, row.value) for row in rows] == [
        ("PSNR", "30.0 dB"),
        ("SSIM", "odd"),
        ("Own figure", "0.123"),
    ]


def test_data_rows():
    rows = data_rows(
        {
            "size": [32, 48],
            "sizes": {(28, 28): 900, "9x9": 1},
            "bad": ["x"],
            "stds": {"all": [0.5, 0.25]},
        }
    )
    assert [row.value for row in rows] == [
        "48 × 32 (width × height)",
        "28 × 28 (900), 9x9 (1)",
        "all: 0.5, 0.25",
    ]
    assert rows[1].label == "Original sizes (width × height)"


@pytest.mark.parametrize(
    "found", [{"a": "b"}, [("a", "b")], [["a", "b"]], [{"path": "a", "reason": "b"}]]
)
def test_bad_files_in_any_shape(found):
    (row,) = bad_files({"bad_files": found})
    assert (row.label, row.value) == ("a", "b")
