"""This machine as a plan sees it: memory that is free, and the rate of its matrix product."""

from pathlib import Path

import psutil
import torch

from loratelier.base.fastest import product_rate
from loratelier.base.plan.figures import Gpu

# What a container may take, where it is in one: version 2 and version 1 of control groups.
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def free_memory(device: torch.device) -> int:
    """Return how many bytes a device has to give: on a CPU, also within a container's limit."""
    if device.type == "cuda":
        # What this process has set aside and does not use is there for it, too.
        own = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + own)
    rooms = [int(psutil.virtual_memory().available)]
    for limit, used in _LIMITS:
        try:
            rooms.append(int(Path(limit).read_text("utf-8")) - int(Path(used).read_text("utf-8")))
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    return max(0, min(rooms))


def this_cpu() -> Gpu:
    """Return this machine's CPU: the memory that is free, and what its products reach now."""
    device = torch.device("cpu")
    return Gpu(
        name="cpu",
        memory=free_memory(device),
        bandwidth=float("inf"),
        bf16=product_rate(torch.bfloat16, device, 1024),
        fp32=product_rate(torch.float32, device, 1024),
    )
