"""What operators, and other proxies, order from whatever process: each function is one operation on a cursor.

The proxies see it at their next look at the farm, within a second.
"""

from __future__ import annotations

import sqlite3
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from gameproxy.farm import registry
from gameproxy.reasons import CloseReason

Network = IPv4Network | IPv6Network


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
