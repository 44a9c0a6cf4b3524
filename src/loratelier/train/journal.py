"""The journal of a run: a line of JSON for every step, for whoever watches.

It is beside the saved state, and is cut back to it when a run goes on, so that it never tells of
steps that were lost.
"""

import json
from pathlib import Path
from typing import Any

from loratelier.train.loop import State
from loratelier.train.steps import Step

FILE = "journal.jsonl"


class Journal:
    """Writes the journal of the run in ``folder``."""

    def __init__(self, folder: Path, reached: int) -> None:
        """Open the journal; what it tells beyond step ``reached`` is dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        kept = [line for line in read(folder) if line["step"] <= reached] if reached else []
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def step(self, state: State, step: Step, rate: float) -> None:
        """Write down a step that was taken."""
        line: dict[str, Any] = {
            "step": state.step,
            "loss": state.losses[-1],
            "learning_rate": rate,
            "tokens": step.tokens,
            "targets": step.targets,
            "seconds": round(state.seconds, 3),
        }
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's journal; a last line that is cut off is left out."""
    path = folder / FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line.endswith("}")]
