"""What lossless files know of the values of a signal: a network of integers beside context
mixing.
"""

from .network import LEVELS, ValueNetwork

__all__ = ["LEVELS", "ValueNetwork"]
