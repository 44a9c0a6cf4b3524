"""Counts for Prometheus, in its text form, version 0.0.4.

Labels are bounded: an adapter that is not served has none, and after ``MOST`` label sets of one
measure the rest counts as ``other``. Nothing a caller writes becomes a label.
"""

import threading
from collections.abc import Iterable

MOST = 512
TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

Labels = tuple[str, ...]


class _Measure:
    """What all measures have: a name, its labels, and a bounded number of label sets."""

    kind = "untyped"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self._lock = threading.Lock()
        self._known: set[Labels] = set()

    def _bounded(self, values: Labels) -> Labels:
        if values in self._known or len(self._known) < MOST:
            self._known.add(values)
            return values
        return tuple("other" for _ in values)

    def _line(self, value: float, values: Labels, suffix: str = "", more: str = "") -> str:
        pairs = [f'{label}="{_escaped(v)}"' for label, v in zip(self.labels, values, strict=True)]
        inside = ",".join([*pairs, more] if more else pairs)
        return (
            f"{self.name}{suffix}{{{inside}}} {value:.10g}"
            if inside
            else (f"{self.name}{suffix} {value:.10g}")
        )

    def lines(self) -> Iterable[str]:
        """Return the measure as Prometheus reads it."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"


class Counter(_Measure):
    """A number that only grows."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        super().__init__(name, help, labels)
        self._values: dict[Labels, float] = {}

    def add(self, amount: float, *values: str) -> None:
        """Add to the count of these labels."""
        with self._lock:
            key = self._bounded(values)
            self._values[key] = self._values.get(key, 0.0) + amount

    def lines(self) -> Iterable[str]:
        """Return the measure as Prometheus reads it."""
        yield from super().lines()
        with self._lock:
            values = dict(self._values)
        for labels, value in values.items():
            yield self._line(value, labels)


class Histogram(_Measure):
    """How long something took, in seconds."""

    kind = "histogram"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        super().__init__(name, help, labels)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, seconds: float, *values: str) -> None:
        """Count one duration."""
        with self._lock:
            key = self._bounded(values)
            counts = self._counts.setdefault(key, [0] * (len(_SECONDS) + 1))
            place = next((n for n, most in enumerate(_SECONDS) if seconds <= most), len(_SECONDS))
            counts[place] += 1
            self._sums[key] = self._sums.get(key, 0.0) + seconds

    def lines(self) -> Iterable[str]:
        """Return the measure as Prometheus reads it."""
        yield from super().lines()
        with self._lock:
            counts, sums = {k: list(v) for k, v in self._counts.items()}, dict(self._sums)
        for labels, each in counts.items():
            below = 0
            for most, count in zip([*map(str, _SECONDS), "+Inf"], each, strict=True):
                below += count
                yield self._line(below, labels, "_bucket", f'le="{most}"')
            yield self._line(sums[labels], labels, "_sum")
            yield self._line(below, labels, "_count")


def gauge(name: str, help: str, value: float) -> list[str]:
    """Return the lines of a number as it is now."""
    return [f"# HELP {name} {help}", f"# TYPE {name} gauge", f"{name} {value:.10g}"]


class Metrics:
    """What the API measures."""

    def __init__(self) -> None:
        self.requests = Counter(
            "loratelier_requests_total", "Requests answered.", ("path", "status")
        )
        self.worn = Counter(
            "loratelier_adapter_requests_total", "Requests by adapter worn.", ("adapter", "stage")
        )
        self.prompt = Counter("loratelier_prompt_tokens_total", "Tokens read.", ("adapter",))
        self.cached = Counter(
            "loratelier_prompt_tokens_cached_total", "Tokens read from the cache.", ("adapter",)
        )
        self.written = Counter(
            "loratelier_completion_tokens_total", "Tokens written.", ("adapter",)
        )
        self.finished = Counter(
            "loratelier_answers_total", "Answers by how they ended.", ("adapter", "finish")
        )
        self.first = Histogram(
            "loratelier_first_token_seconds", "Until the first token.", ("adapter",)
        )
        self.whole = Histogram("loratelier_request_seconds", "Until the last token.", ("adapter",))
        self.refused = Counter("loratelier_refused_total", "Requests refused.", ("status",))

    def render(self, more: Iterable[str] = ()) -> str:
        """Return everything, with lines of others after it."""
        measures = [each for each in vars(self).values() if isinstance(each, _Measure)]
        lines = [line for measure in measures for line in measure.lines()]
        return "\n".join([*lines, *more]) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
