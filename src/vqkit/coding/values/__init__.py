"""What lossless files know of the values of a signal: a network of integers beside context mixing,
of values of which near ones are alike; of bytes of text a coder of their own.
"""

from .bytes import BytesCoder
from .network import LEVELS, ValueNetwork

__all__ = ["LEVELS", "BytesCoder", "ValueNetwork"]
