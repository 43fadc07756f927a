"""Images from files, folders and tables to batches; every order and split is a pure function of content and seed."""

from .batches import split_batches, training_batches
from .images import load_picture, picture_paths
from .noise import add_noise
from .normalisation import Normalisation
from .ranges import ValueRange
from .sources import ImageData, bad_files, open_images, sample_sheet
from .splits import derive_seed
from .stores import BadFile

__all__ = [
    "BadFile",
    "ImageData",
    "Normalisation",
    "ValueRange",
    "add_noise",
    "bad_files",
    "derive_seed",
    "load_picture",
    "open_images",
    "picture_paths",
    "sample_sheet",
    "split_batches",
    "training_batches",
]
