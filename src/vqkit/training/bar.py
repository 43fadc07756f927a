"""The live bar of a run; rich comes with `vqkit[train]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from .progress import figures


class _TwoLines(Progress):
    """A bar with the figures under it, so that neither is cut off on a narrow terminal."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(task.fields["figures"], overflow="ellipsis", no_wrap=True)


class Bar:
    """A rich progress bar with ETA, and the latest figures under it."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar = _TwoLines(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self.console,
        )

    def start(self, title: str) -> None:
        self.bar.start()
        self.task = self.bar.add_task("vqkit", total=1.0, figures="")
        if title:
            self.message(title)

    def update(self, progress: float, row: Mapping[str, Any]) -> None:
        if row:
            self.bar.update(self.task, completed=progress, figures=figures(row))
        else:
            self.bar.update(self.task, completed=progress)

    def message(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)

    def stop(self) -> None:
        self.bar.stop()
