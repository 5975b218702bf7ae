"""The relay in the kernel: an eBPF program passes frames between two sockets (docs/sockmap.md)."""

from gameproxy.relay.sockmap.availability import Unavailable, load, why_not
from gameproxy.relay.sockmap.layout import Account, Limit, Stop
from gameproxy.relay.sockmap.pair import Lane, Pair, Way
from gameproxy.relay.sockmap.plane import BACKLOG_MOST, NotTaken, SockmapPlane

__all__ = [
    "BACKLOG_MOST",
    "Account",
    "Lane",
    "Limit",
    "NotTaken",
    "Pair",
    "SockmapPlane",
    "Stop",
    "Unavailable",
    "Way",
    "load",
    "why_not",
]
