"""What a proxy takes of the machine (proc(5)), under the names that Prometheus' libraries have for it.

prometheus_client has a collector for this, which lists all descriptors: with 18,000 of them that is a pause of 30 ms.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred

RunInThread = Callable[[Callable[[], int]], Deferred[int]]
_SELF: Final = Path("/proc/self")
_FOLDER: Final = _SELF / "fd"
_AFTER_NAME: Final = 2
"""The place in /proc/self/stat of what stands after the name, which may have anything in it."""
_STARTED: Final = 21 - _AFTER_NAME


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """How much it is.

    :param processor: seconds, in all its threads.
    :param resident: bytes of memory; ``virtual`` of address space.
    :param started_at: seconds since the epoch.
    :param descriptors: that are open; ``max_descriptors`` may be.
    """

    processor: float
    resident: int
    virtual: int
    started_at: float
    descriptors: int
    max_descriptors: int


class ProcessReader:
    """Reads it.

    :param run_in_thread: for what takes long.
    """

    def __init__(self, run_in_thread: RunInThread) -> None:
        self._run_in_thread = run_in_thread
        self._started_at = _booted_at() + _ticks_to_start() / os.sysconf("SC_CLK_TCK")

    async def read(self) -> ProcessReading:
        """How much it is now."""
        descriptors = _FOLDER.stat().st_size  # since Linux 6.2; before, it is 0
        if not descriptors:
            descriptors = await self._run_in_thread(count_descriptors)
        times = os.times()
        virtual, resident = (_SELF / "statm").read_text("ascii").split()[:2]
        page = resource.getpagesize()
        return ProcessReading(
            processor=times.user + times.system,
            resident=int(resident) * page,
            virtual=int(virtual) * page,
            started_at=self._started_at,
            descriptors=descriptors,
            max_descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )


def count_descriptors() -> int:
    """How many descriptors are open, but that of the list of them."""
    return sum(1 for _ in os.scandir(_FOLDER)) - 1


def _ticks_to_start() -> int:
    """Clock ticks from the start of the machine to that of this process."""
    return int((_SELF / "stat").read_bytes().rpartition(b")")[2].split()[_STARTED])


def _booted_at() -> float:
    """When the machine was started."""
    lines = Path("/proc/stat").read_text("ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))
