"""From data to an artifact: the loop, its guards, and everything that touches several processes."""

from .codes import PriorResult, train_prior
from .images import TrainingResult, train

__all__ = ["PriorResult", "TrainingResult", "train", "train_prior"]
