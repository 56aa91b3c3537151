"""Hardware, processes, memory use and package versions of a run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

_STATUS = Path("/proc/self/status")
PACKAGES = ("spacy-slmre", "spacy", "torch", "transformers", "peft", "bitsandbytes", "accelerate")


def hardware(device: torch.device | None = None) -> str:
    """Return the name of the GPU, or of the processor with the number of threads."""
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if "model name" in line), name)
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


class ProcessGroup(NamedTuple):
    """The place of this process among those that torchrun or `accelerate launch` started together.

    Attributes:
        rank: Number of this process, from 0; the first one reads, reports and writes for all.
        local_rank: The same on this machine; None if it was not started with others.
        size: Number of processes.
    """

    rank: int = 0
    local_rank: int | None = None
    size: int = 1

    @classmethod
    def from_environment(cls) -> ProcessGroup:
        """Read the variables that the launcher sets."""
        local_rank = os.environ.get("LOCAL_RANK")
        return cls(
            int(os.environ.get("RANK", "0")),
            None if local_rank is None else int(local_rank),
            int(os.environ.get("WORLD_SIZE", "1")),
        )

    @property
    def is_main(self) -> bool:
        """Whether this is the first process."""
        return self.rank == 0


def peak_memory(device: torch.device | None = None) -> float:
    """Return the peak memory since the start or the last reset in GB, of the GPU or of this process."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if _STATUS.exists():  # Linux; unlike getrusage's value, this one can be reset
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def reset_peak_memory() -> None:
    """Reset `peak_memory` to the current usage, if the operating system permits it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}
