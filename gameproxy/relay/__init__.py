"""Relays: they move frames between a client and a game server until either side ends."""

from gameproxy.relay.choice import PlaneUnavailable, Relays
from gameproxy.relay.epoll import EpollPlane, EpollRelay
from gameproxy.relay.kernel import KernelRelay
from gameproxy.relay.kernel_plane import KernelPlane
from gameproxy.relay.meter import RelayLimits
from gameproxy.relay.transport import Terms, TransportRelay

__all__ = [
    "EpollPlane",
    "EpollRelay",
    "KernelPlane",
    "KernelRelay",
    "PlaneUnavailable",
    "RelayLimits",
    "Relays",
    "Terms",
    "TransportRelay",
]
