"""What this machine can take."""

from __future__ import annotations

from pathlib import Path

import psutil

from flyte_unified.executor.slots import Capacity

_DEVICES = Path("/dev")


def capacity(*, slots: int, memory_fraction: float, watermark: int, limit: int) -> Capacity:
    """``slots`` CPUs, a fraction of the memory, and the NVIDIA GPUs whose devices are there."""
    return Capacity(
        cpu=float(slots),
        memory=int(psutil.virtual_memory().total * memory_fraction),
        gpus=tuple(sorted(int(path.name[6:]) for path in _DEVICES.glob("nvidia[0-9]*") if path.name[6:].isdecimal())),
        watermark=watermark,
        limit=limit,
    )
