"""The standard input and output in the place of files, named `-`."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from .arguments import STANDARD
from .printing import write_file


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


def write_output(
    options: argparse.Namespace, path: Path, content: bytes | Callable[[Path], None]
) -> None:
    """A file in full or not at all, or the bytes to the standard output where that was asked for.

    content: bytes, or what fills a file with them. VqkitError when it cannot be written.
    """
    if options.out != STANDARD:
        write_file(path, content)
        return
    assert sys.__stdout__ is not None
    output = sys.__stdout__.buffer
    if isinstance(content, bytes):
        output.write(content)
    else:
        # Headers say how long a file is, and are written when that is known.
        with tempfile.TemporaryDirectory(prefix="vqkit-") as folder:
            whole = Path(folder) / path.name
            content(whole)
            with open(whole, "rb") as file:
                shutil.copyfileobj(file, output)
    output.flush()
