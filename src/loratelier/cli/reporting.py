"""Progress on stderr: bars with the time left on a terminal, a line now and then on a pipe."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from loratelier.cli.console import err
from loratelier.kit.progress import Bar, Reporter

# On a pipe a task speaks after so many seconds, and not more often.
_INTERVAL = 10.0


def reporter() -> Reporter:
    """Return the reporter that suits where stderr goes."""
    return _Bars() if err.is_terminal else _Lines()


class _RichBar:
    def __init__(self, progress: Progress, task_id: TaskID) -> None:
        self._progress = progress
        self._task = task_id

    def advance(self, amount: float = 1) -> None:
        self._progress.advance(self._task, amount)

    def say(self, note: str, left: float | None = None) -> None:
        ends = None if left is None else monotonic() + left
        self._progress.update(self._task, note=note, ends=ends)


class _Left(ProgressColumn):
    """The time left: what the room says, and else what the pieces done say."""

    max_refresh = 0.5

    def __init__(self) -> None:
        super().__init__()
        self._guess = TimeRemainingColumn()

    def render(self, task: Task) -> Text:
        ends = task.fields["ends"]
        if ends is None or task.finished:
            return self._guess.render(task)
        return Text(_clock(max(0.0, ends - monotonic())), style="progress.remaining")


class _Bars:
    """Bars with the time left; a bar inside a bar shares its display."""

    def __init__(self) -> None:
        self._live: Progress | None = None

    @contextmanager
    def task(self, description: str, total: float | None) -> Iterator[Bar]:
        if self._live is not None:
            yield from self._bar(self._live, description, total)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            _Left(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=err, refresh_per_second=4) as progress:
            self._live = progress
            try:
                yield from self._bar(progress, description, total)
            finally:
                self._live = None

    def _bar(self, progress: Progress, description: str, total: float | None) -> Iterator[Bar]:
        inner = len(progress.tasks) > 0
        task_id = progress.add_task(description, total=total, note="", ends=None)
        yield _RichBar(progress, task_id)
        if total is not None:
            progress.update(task_id, completed=total)
        if inner:
            # What is done inside a longer task gives its line back.
            progress.remove_task(task_id)

    def remark(self, text: str) -> None:
        err.print(text, markup=False)


class _Line:
    def __init__(self, description: str, total: float | None) -> None:
        self._description = description
        self._total = total
        self._done = 0.0
        self._note = ""
        self._left: float | None = None
        self._began = self._spoke = monotonic()

    def advance(self, amount: float = 1) -> None:
        self._done += amount
        now = monotonic()
        if now - self._spoke < _INTERVAL:
            return
        self._spoke = now
        of, left = "", ""
        if self._total:
            of = f"/{self._total:g}"
            guess = (now - self._began) / self._done * (self._total - self._done)
            left = f", {_clock(guess if self._left is None else self._left)} left"
        note = f", {self._note}" if self._note else ""
        err.print(f"{self._description}: {self._done:g}{of}{left}{note}", markup=False)

    def say(self, note: str, left: float | None = None) -> None:
        self._note = note
        self._left = left


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Lines:
    """A line every ten seconds, for logs."""

    @contextmanager
    def task(self, description: str, total: float | None) -> Iterator[Bar]:
        yield _Line(description, total)

    def remark(self, text: str) -> None:
        err.print(text, markup=False, soft_wrap=True)
