"""The farm: the game servers that one database knows, and the slots on them."""

from gameproxy.farm.placement import GameFarm, Starter
from gameproxy.farm.processes import LinuxProcesses, Processes, ProcessName
from gameproxy.farm.store import FarmStore, StoreError, StoreUnavailable

__all__ = [
    "FarmStore",
    "GameFarm",
    "LinuxProcesses",
    "ProcessName",
    "Processes",
    "Starter",
    "StoreError",
    "StoreUnavailable",
]
