"""The standard input and output in the place of files, named `-`."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .printing import write_file

STANDARD = "-"


@contextlib.contextmanager
def standard_streams(options: argparse.Namespace) -> Iterator[None]:
    """Inside, `-` among `options.files` is a file that holds what came in, and where `options.out`
    is `-` messages go to the error stream.
    """
    with contextlib.ExitStack() as stack:
        if STANDARD in options.files:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vqkit-")))
            # Its name stays what it was called by.
            path = folder / STANDARD
            with open(path, "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
            options.files = [str(path) if one == STANDARD else one for one in options.files]
        if options.out == STANDARD:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def write_output(options: argparse.Namespace, path: Path, content: bytes) -> None:
    """A file in full or not at all, or the bytes to the standard output where that was asked for.

    VqkitError when it cannot be written.
    """
    if options.out != STANDARD:
        write_file(path, content)
        return
    assert sys.__stdout__ is not None
    sys.__stdout__.buffer.write(content)
    sys.__stdout__.buffer.flush()
