"""What the command line asks of the library of PyTorch's threads, as that library says it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[1] / "golden" / "emoji-model"


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has another library there")
@pytest.mark.parametrize("mine, told", [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_threads_that_wait_sleep_soon_unless_told_otherwise(mine, told):
    others = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run(
        [sys.executable, "-m", "vqkit", "info", str(MODEL)],
        env={**others, **mine, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{told}'" in done.stderr
