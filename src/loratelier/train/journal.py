"""The journal of a run: a line of JSON for every step and evaluation, for whoever watches.

It is beside the saved state, and is cut back to it when a run goes on, so that it never tells of
steps that were lost. The same numbers go to TensorBoard or trackio where the recipe asks for it.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator

from loratelier.kit.files import write_atomic
from loratelier.kit.progress import remark

if TYPE_CHECKING:
    from loratelier.train.loop import Point, State
    from loratelier.train.steps import Step

FILE = "journal.jsonl"


class Journal:
    """Writes the journal of the run in ``folder``, from its main process."""

    def __init__(self, folder: Path, reached: int, accelerator: Accelerator) -> None:
        """Open the journal; what it tells beyond step ``reached`` is dropped."""
        self._path = folder / FILE
        self._accelerator = accelerator
        self._writes = accelerator.is_main_process
        if self._writes:
            kept = [line for line in read(folder) if line["step"] <= reached] if reached else []
            write_atomic(self._path, "".join(json.dumps(line) + "\n" for line in kept))

    def step(self, state: "State", step: "Step", rate: float) -> None:
        """Write down a step that was taken."""
        self._write(
            {
                "step": state.step,
                "loss": state.losses[-1],
                "learning_rate": rate,
                "tokens": step.tokens,
                "targets": step.targets,
                "seconds": round(state.seconds, 3),
            }
        )

    def point(self, point: "Point") -> None:
        """Write down an evaluation."""
        line = asdict(point)
        figures = {f"held_out_{name}": value for name, value in line.pop("held_out").items()}
        self._write({"evaluation": True} | line | figures)

    def _write(self, line: dict[str, Any]) -> None:
        values = {key: value for key, value in line.items() if isinstance(value, float | int)}
        self._accelerator.log(values, step=line["step"])
        if not self._writes:
            return
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            self._writes = False
            remark(f"The journal cannot be written ({error.strerror}): training goes on without")


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's journal; a last line that is cut off is left out."""
    path = folder / FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line.endswith("}")]
