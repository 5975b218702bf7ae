"""The farm: the game servers that one database knows, and the slots on them."""

from gameproxy.farm.game_farm import GameFarm
from gameproxy.farm.keeper import Starter
from gameproxy.farm.processes import LinuxProcesses, Processes, ProcessName
from gameproxy.farm.selection import Selector
from gameproxy.farm.starter import GameServerStarter
from gameproxy.farm.store import FarmStore, StoreUnavailable
from gameproxy.farm.upgrades import StoreError

__all__ = [
    "FarmStore",
    "GameFarm",
    "GameServerStarter",
    "LinuxProcesses",
    "ProcessName",
    "Processes",
    "Selector",
    "Starter",
    "StoreError",
    "StoreUnavailable",
]
