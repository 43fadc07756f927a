"""What can be wrong with a .vq file: one class for each, all of them errors that users meet."""

from __future__ import annotations

from ...errors import VqkitError


class FormatError(VqkitError):
    """Something is wrong with a .vq file; the class says what."""


class NotVq(FormatError):
    """The data do not begin like a .vq file."""


class NewerVersion(FormatError):
    """A version, profile or coder that this code does not know."""


class WrongProfile(FormatError):
    """A bundle was read as a single file, or the other way round."""


class WrongModel(FormatError):
    """The file belongs to another model, or holds another kind of signal than the model's."""


class CorruptHeader(FormatError):
    """The header, or the index of a bundle, is not what was written."""


class CorruptSection(FormatError):
    """A section breaks the rules of the format."""


class UnknownSection(FormatError):
    """A section that this code does not know and may not skip."""


class TrailingBytes(FormatError):
    """Bytes behind the codes, or between sections, that do not belong there."""


class OutOfBounds(FormatError):
    """A size is larger than the format allows, or zero."""


class Truncated(FormatError):
    """The file ends before the first whole stage, or before what was asked for."""


class CorruptCodes(FormatError):
    """The decoded codes are not those that were written."""
