"""Arguments that several commands take, each said once, the numbers that options may be, and files
as items.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import VqkitError
from ..printable import one_line
from .printing import warn

if TYPE_CHECKING:
    from torch import Tensor

    from ..artifact.long_items import LongItem
    from ..artifact.model import Model
    from ..training.progress import Display

ItemT = TypeVar("ItemT")
# The name of the standard input and output in the place of a file.
STANDARD = "-"
# When the command began, which a time budget counts from.
STARTED = time.monotonic()


class Number:
    """The type of a numeric option: whole or not, finite, within bounds."""

    def __init__(
        self,
        kind: type[int] | type[float],
        low: float = -math.inf,
        high: float = math.inf,
        *,
        above: bool = False,
    ) -> None:
        self.kind = kind
        self.low = low
        self.high = high
        self.above = above

    def __call__(self, text: str) -> float | int:
        try:
            value = self.kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not {self._words()}") from error
        too_low = value <= self.low if self.above else value < self.low
        if not math.isfinite(value) or too_low or value > self.high:
            raise argparse.ArgumentTypeError(f"{text} is not {self._words()}")
        return value

    def _words(self) -> str:
        what = "a whole number" if self.kind is int else "a number"
        if math.isfinite(self.low):
            what += f" above {self.low:g}" if self.above else f" from {self.low:g}"
        if math.isfinite(self.high):
            what += f" up to {self.high:g}"
        return what


COUNT = Number(int, 1)
WHOLE = Number(int, 0)
SHARE = Number(float, 0, 1)
POSITIVE = Number(float, 0, above=True)
NOT_NEGATIVE = Number(float, 0)


# Rates that a model may have, from few bits to many.
RATES = ("lowest", "low", "medium", "high", "full")


def rate(text: str) -> str | float:
    """The type of a rate: one of RATES, or a number of bits above 0."""
    if text in RATES:
        return text
    try:
        return POSITIVE(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor {', '.join(RATES)}") from error


SEED = Number(int, 0, (1 << 63) - 1)


def add_artifact(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument(
        "artifact", metavar="DIR", help="folder of a trained model, or hf://user/name" + more
    )
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)"
    )


def add_data(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument("data", metavar="DATA", help="folder, file or built-in set" + more)


def add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILES", help="files, or folders of them")


def add_settings(
    parser: argparse.ArgumentParser,
    metavar: str = "key.subkey=value",
    text: str = "settings over the recipe's",
) -> None:
    parser.add_argument("settings", nargs="*", default=[], metavar=metavar, help=text)


def add_recipe(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--recipe", metavar="NAME|FILE.yaml", help=text)


def add_licence(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--licence", metavar="ID", help="of the weights: apache-2.0, cc-by-4.0, one of your own"
    )


def add_run(parser: argparse.ArgumentParser, default_recipe: str) -> None:
    """What a run starts from, for commands that train."""
    add_recipe(parser, f"see 'vqkit recipes'; default: {default_recipe}")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run that stopped in DIR"
    )
    add_minutes(parser)


def add_minutes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--minutes",
        type=POSITIVE,
        metavar="N",
        help="time for the whole command, coders and report included",
    )


def announce_loading() -> None:
    """Before the imports of training, which take seconds; once, however many ranks there are."""
    if int(os.environ.get("RANK", "0")) == 0:
        warn("loading ...")


def display_of_run() -> Display:
    """What shows the progress of training."""
    from ..training.progress import live

    return live()


def of_run(options: argparse.Namespace) -> dict[str, Any]:
    """What every training takes from its command, by the names of the pipelines' arguments."""
    return {
        "resume": options.resume,
        "minutes": options.minutes,
        "display": display_of_run(),
        "started": STARTED,
    }


def load_model(folder: str | Path, device: str = "auto") -> Model:
    """The model of an artifact's folder; what could not be read of it is said."""
    from ..artifact.model import Model
    from ..artifact.store import load_artifact

    model = Model(load_artifact(folder), device)
    for problem in model.artifact.problems:
        warn(f"vqkit: {one_line(problem)}")
    return model


def read_item(model: Model, path: str | Path, *, exact: bool = False) -> Tensor:
    """One file as values (C, *extent). VqkitError naming the file."""
    return model.signal.read(Path(path), model.data, model.config.data, exact=exact)


def open_item(model: Model, path: Path) -> Tensor | LongItem:
    """As `read_item`, or a long item, which is not held in memory."""
    from ..artifact.long_items import open_item

    return open_item(model.artifact, path)


def shown_name(path: Path) -> str:
    """A file as the user named it: the standard input is kept in a file of that name."""
    return STANDARD if path.name == STANDARD else str(path)


class Items(Generic[ItemT]):
    """Files, or those in folders, as `read` gives them; what cannot be read is said, counted and
    left out. What reading changes of them is said of the first that it is changed of.
    """

    def __init__(
        self, model: Model, files: Iterable[str | Path], read: Callable[[Path], ItemT]
    ) -> None:
        self.model = model
        self.paths = list(model.signal.find(files))
        self.failed = 0
        self._read = read
        self._said: set[str] = set()
        if not self.paths:
            raise VqkitError(f"no {model.signal.item}s in {', '.join(map(str, files))}")

    def __iter__(self) -> Iterator[tuple[Path, ItemT]]:
        for path in self.paths:
            try:
                values = self._read(path)
            except VqkitError as error:
                self.skip(path, error)
                continue
            self._say_changes(path)
            yield path, values

    def _say_changes(self, path: Path) -> None:
        changes = self.model.signal.changes_in_reading(path, self.model.data)
        if changes is not None and changes not in self._said:
            self._said.add(changes)
            warn(f"vqkit: {one_line(f'{shown_name(path)}: {changes}')}")

    def skip(self, path: Path, error: VqkitError) -> None:
        """Say why a file is left out, and count it."""
        self.failed += 1
        name = shown_name(path)
        text = str(error).replace(str(path), name)
        if name not in text:
            text = f"{name}: {text}"
        warn(f"vqkit: skipped: {one_line(text)}")

    @property
    def status(self) -> int:
        """Exit status of a command that went through all of them."""
        return 1 if self.failed else 0
