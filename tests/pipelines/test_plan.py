"""Which of two budgets ended a run."""

import pytest
import torch

from vqkit.config import TrainConfig
from vqkit.pipelines.plan import ending_minutes
from vqkit.training.loop import Finished


@pytest.mark.parametrize(
    ("minutes", "own", "seconds", "stopped_by", "expected"),
    [
        (10, None, 450, "max_minutes", 10),
        # The settings' own 5 minutes are over, but for the last validation pass.
        (10, 5.0, 290, "max_minutes", None),
        (10, 20.0, 450, "max_minutes", 10),
        (10, None, 450, "steps", None),
        (10, None, 450, "plateau", None),
        (None, 5.0, 290, "max_minutes", None),
    ],
)
def test_the_minutes_of_the_command_count_where_they_ended_training(
    minutes, own, seconds, stopped_by, expected
):
    figures = {"stopped_by": stopped_by, "training_seconds": seconds}
    finished = Finished(torch.nn.Identity(), [], [], figures)
    assert ending_minutes(minutes, finished, TrainConfig(max_minutes=own)) == expected
