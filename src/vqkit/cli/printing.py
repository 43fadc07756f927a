"""What commands print and write: text that is safe for terminals, figures in words, a progress bar,
new files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import VqkitError
from ..printable import printable

if TYPE_CHECKING:
    from torch import Tensor

    from ..signals.base import Signal

# name -> what runs it (gives the exit status), one line of help, what adds its arguments
Commands: TypeAlias = dict[
    str, tuple[Callable[[argparse.Namespace], int], str, Callable[[argparse.ArgumentParser], None]]
]


def say(text: str = "", *, end: str = "\n", flush: bool = False) -> None:
    """Print to the standard output; the one place where commands do."""
    print(printable(text), end=end, flush=flush)


def warn(text: str) -> None:
    """Print to the error stream; the one place where commands do."""
    print(printable(text), file=sys.stderr)


def plain(value: Any) -> str:
    """A value in words: numbers short, tables as 'key value' pairs."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in list(value.items())[:12]) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return " x ".join(map(plain, value))
    return str(value)


def print_figures(metrics: Mapping[str, Any]) -> None:
    """Figures, a line each.

    Those of another form than they are written in are left out, which is said.
    """
    for key, value in metrics.items():
        try:
            _print_figure(key, value, metrics)
        except (AttributeError, KeyError, TypeError, ValueError):
            warn(f"'{key}' in metrics.json is not what vqkit wrote and is not shown")


def _print_figure(key: str, value: Any, metrics: Mapping[str, Any]) -> None:
    if key == "rates":
        split = f" ({metrics['rates_split']} split)" if metrics.get("rates_split") else ""
        for name, point in value.items():
            unit = "%" if "byte_accuracy" in metrics else "dB"
            say(
                f"{'rate ' + name:<18} {point['bits']:.0f} bits an item, {point['psnr']:.2f} "
                f"{unit}{split}"
            )
    elif key == "denoised":
        unit = "%" if "byte_accuracy" in metrics else "dB"
        for name, point in value.items():
            say(
                f"{'noise ' + name:<18} noisy {point['noisy']:.2f} {unit}, denoised "
                f"{point['denoised']:.2f} {unit}"
            )
    elif key != "rates_split" and value is not None:
        say(f"{key:<18} {plain(value)}")


class progress_bar:
    """A bar on the error stream while something takes long, which swings until a share is told.

    Nothing when that is not a terminal, and without rich, which comes with `vqkit[train]`. What is
    printed meanwhile goes where it would go without.
    """

    def __init__(self, what: str) -> None:
        self.bar: Any = None
        if not sys.stderr.isatty() or find_spec("rich") is None:
            return
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(
            console=Console(stderr=True),
            transient=True,
            # It would take what goes into a file or a pipe to the terminal.
            redirect_stdout=sys.stdout.isatty(),
        )
        self.task = self.bar.add_task(printable(what), total=None)

    def __enter__(self) -> Callable[[float], None]:
        if self.bar is None:
            return lambda share: None
        self.bar.start()
        return lambda share: self.bar.update(self.task, total=1.0, completed=share)

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def write_file(path: Path, content: bytes | Callable[[Path], None]) -> None:
    """A file, in full or not at all, of bytes or by what fills it; VqkitError when it cannot be
    written.
    """
    from ..files import write_bytes, write_whole

    try:
        if isinstance(content, bytes):
            write_bytes(path, content)
        else:
            write_whole(path, content)
    except OSError as error:
        raise VqkitError(
            f"cannot write {path}: {error.strerror or error}; choose another name"
        ) from error


def write_new(path: Path, content: bytes | Callable[[Path], None], quiet: bool = False) -> Path:
    """The file under this name or, if it is taken, the next free one.

    VqkitError when it cannot be written.
    """
    from ..files import free_name

    target = free_name(path)
    write_file(target, content)
    if not quiet:
        say(str(target))
    return target


def write_items(
    options: argparse.Namespace,
    signal: Signal,
    data: Mapping[str, Any],
    values: Tensor,
    columns: int | None = None,
) -> None:
    """The items on one sheet, a single one as it is, and, if wanted, each in a file."""
    from ..report.images import png_bytes
    from ..report.sheets import contact_sheet

    if len(values) > 1:
        sheet = contact_sheet(signal.display(values), columns)
        write_new(Path(options.out), png_bytes(sheet))
    else:
        write_new(Path(options.out), signal.write(values[0], data))
    if options.each:
        stem = Path(options.out).stem
        for index, one in enumerate(values):
            target = Path(options.each) / f"{stem}-{index:03}{signal.suffix}"
            write_new(target, signal.write(one, data), quiet=True)
        say(options.each)
