"""The one exception that users meet: a sentence that says what is wrong and what to do next."""

from __future__ import annotations


class VqkitError(Exception):
    """Bad input, settings or surroundings.

    The command line prints the message alone and exits with 2.
    """


class TrainingDiverged(VqkitError):
    """A loss term stopped being finite; the message names the step and the term."""
