"""From data to an artifact: the loop, its guards, and everything that touches several processes."""

from .trainer import TrainingResult, train

__all__ = ["TrainingResult", "train"]
