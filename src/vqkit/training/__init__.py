"""From data to an artifact: the loop, its guards, and everything that touches several processes."""

from .coder import fit_coder
from .codes import PriorResult, train_prior
from .images import TrainingResult, train
from .pixels import fit_pixels

__all__ = ["PriorResult", "TrainingResult", "fit_coder", "fit_pixels", "train", "train_prior"]
