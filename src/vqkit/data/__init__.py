"""Pictures from files, folders and tables to batches; every order and split is a pure function of content and seed."""

from .batches import split_batches, training_batches
from .images import load_picture, picture_paths
from .normalisation import Normalisation
from .sources import ImageData, open_images, sample_sheet
from .stores import BadFile

__all__ = [
    "BadFile",
    "ImageData",
    "Normalisation",
    "load_picture",
    "open_images",
    "picture_paths",
    "sample_sheet",
    "split_batches",
    "training_batches",
]
