"""Several processes on one run, through accelerate; and the logs that it writes to."""

from importlib.util import find_spec
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType, ProjectConfiguration

from loratelier.base import Base
from loratelier.kit.errors import InputError
from loratelier.kit.home import room
from loratelier.train.recipe import Recipe


def make_accelerator(recipe: Recipe, base: Base) -> Accelerator:
    """Return accelerate's accelerator for a run: one process, or those of `accelerate launch`.

    Raises:
        InputError: a log is asked for whose package is not installed; DeepSpeed, whose engine takes
            steps and shares out moments in ways that the loop and its states do not know.
    """
    for package in recipe.logs:
        if find_spec(package) is None:
            raise InputError(
                f"logs: {package} is not installed", f"pip install 'loratelier[logs]', or {package}"
            )
    folder = str(room("logs"))
    trackers: list[Any] = list(recipe.logs)
    accelerator = Accelerator(
        cpu=base.device.type == "cpu",
        log_with=trackers or None,
        project_config=ProjectConfiguration(project_dir=folder, logging_dir=folder),
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise InputError(
            "DeepSpeed is not supported: a stopped run could not go on from its states",
            "Launch with recipes/accelerate/fsdp2.yaml, which shares the base out too, or ddp.yaml",
        )
    if trackers:
        told = {key: str(value) for key, value in recipe.model_dump(mode="json").items()}
        accelerator.init_trackers(recipe.name, config=told)
    return accelerator
