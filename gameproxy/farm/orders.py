"""What operators, and other proxies, order from whatever process: each function is one operation on a cursor.

The proxies see it at their next look at the farm, within a second.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from gameproxy.farm import registry
from gameproxy.reasons import CloseReason

Network = IPv4Network | IPv6Network


class OrderFailed(Exception):
    """An order cannot be carried out; the text says why, for people.

    :ivar missing: whether what it names is not there.
    """

    def __init__(self, message: str, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Ordered:
    """The game server that an order concerns.

    :param origin: ``started`` or ``listed``.
    :param keeper: the proxy that looks after it.
    """

    state: str
    origin: str
    keeper: str | None


def look_up(cursor: sqlite3.Cursor, server: str) -> Ordered:
    """The game server that somebody names.

    :raises OrderFailed: there is none, or none any more.
    """
    row = cursor.execute(
        "SELECT state, origin, proxy FROM game_servers WHERE id = ?", (server,)
    ).fetchone()
    if row is None:
        raise OrderFailed(f"{server}: there is no such game server", missing=True)
    if row[0] == "closed":
        raise OrderFailed(f"{server}: has ended already", missing=True)
    return Ordered(*row)


def order_drain(cursor: sqlite3.Cursor, server: str) -> None:
    """Let nobody else onto a game server, if it does not drain already.

    :raises OrderFailed: that cannot be.
    """
    state = look_up(cursor, server).state
    if state != "draining" and not drain(cursor, server):
        raise OrderFailed(f"{server}: is {state}: only one that is ready can be drained")


def look_up_to_stop(cursor: sqlite3.Cursor, server: str) -> Ordered:
    """The game server that is to be ended.

    :raises OrderFailed: it is not there, or no proxy can end it.
    """
    found = look_up(cursor, server)
    if found.origin != "started":
        raise OrderFailed(
            f"{server}: was not started by a proxy, and has to be ended where it runs;"
            " to let nobody else in: farm drain"
        )
    return found


def drain(cursor: sqlite3.Cursor, server: str) -> bool:
    """Let nobody else onto a game server; whether it was ready or lost."""
    return registry.set_state(cursor, server, "ready", "draining") or registry.set_state(
        cursor, server, "lost", "draining"
    )


def doubt(cursor: sqlite3.Cursor, player: str, now: float) -> None:
    """Mark the sessions that keep a player out: their proxies are to see whether the clients are still there."""
    cursor.execute(
        "UPDATE slots SET doubted_at = ? WHERE player = ? AND evict IS NULL", (now, player)
    )


def doubted_sessions(cursor: sqlite3.Cursor, proxy: str) -> list[tuple[str, float]]:
    """A proxy's sessions that are so marked, and with which time."""
    return cursor.execute(
        "SELECT session, doubted_at FROM slots WHERE proxy = ? AND doubted_at IS NOT NULL "
        "ORDER BY arrival",
        (proxy,),
    ).fetchall()


def kick_address(cursor: sqlite3.Cursor, network: Network) -> int:
    """Mark all sessions from these addresses to be ended by their proxies; how many there are."""
    sessions = [
        (CloseReason.KICKED, session)
        for session, address in cursor.execute(
            "SELECT session, address FROM slots WHERE evict IS NULL ORDER BY arrival"
        ).fetchall()
        if _is_in(address, network)
    ]
    cursor.executemany("UPDATE slots SET evict = ? WHERE session = ?", sessions)
    return len(sessions)


def network_of(text: str) -> Network:
    """The addresses that an IP or a CIDR means; an IPv4 address written as IPv6 is an IPv4 address.

    :raises ValueError: it is neither, or has a zone, which means something on one machine alone.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a zone")
    network = ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


def _is_in(address: str, network: Network) -> bool:
    try:
        return ip_address(address) in network
    except ValueError:  # of a client that has no IP
        return False
