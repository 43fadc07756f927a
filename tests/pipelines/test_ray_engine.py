"""What is checked before a Ray cluster is given work; scripts/ray_check.py runs one."""

import pytest

from vqkit.errors import VqkitError
from vqkit.pipelines.ray_engine import _check_room


@pytest.mark.parametrize(
    "resources, wanted, device, expected",
    [
        ({"CPU": 4.0}, None, "auto", (3, 0)),
        ({"CPU": 4.0}, 3, "auto", (3, 0)),
        ({"CPU": 16.0, "GPU": 2.0}, None, "auto", (2, 1)),
        ({"CPU": 16.0, "GPU": 2.0}, None, "cpu", (15, 0)),
    ],
)
def test_one_cpu_stays_free_and_gpus_are_shared_out(resources, wanted, device, expected):
    assert _check_room(resources, wanted, device) == expected


@pytest.mark.parametrize(
    "resources, wanted", [({"CPU": 4.0}, 4), ({"CPU": 1.0}, None), ({"CPU": 9.0, "GPU": 2.0}, 3)]
)
def test_workers_that_would_wait_forever_are_refused(resources, wanted):
    with pytest.raises(VqkitError, match="one CPU stays with Ray Data: ask for fewer --workers"):
        _check_room(resources, wanted, "auto")
