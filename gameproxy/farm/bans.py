"""Who is banned: the table of bans, read again only when it changes."""

from __future__ import annotations

import math
import sqlite3
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from twisted.logger import Logger

_SUBJECT_SHOWN: Final = 64
"""Characters of a banned address that is none, in the log."""
_TOLD_MAX: Final = 100
"""Most of them that the log gets."""


class Bans:
    """Looks players and addresses up in the bans, at a cost that does not grow with their number.

    Used in the database's thread, within transactions.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._database = 0
        self._version: tuple[int, int] | None = None
        self._players: dict[str, float] = {}
        self._networks: dict[tuple[int, int], dict[int, float]] = {}
        self._told: set[str] = set()
        """The banned addresses that are none, which the log has: each change of a ban has all read again."""

    def forget(self) -> None:
        """The database is another one, in which versions mean something else."""
        self._database += 1

    def banned_until(
        self, cursor: sqlite3.Cursor, player: str | None, address: str, now: float
    ) -> float | None:
        """When the ban of a player or an address ends: seconds since the epoch, infinity for never.

        :return: ``None`` when neither is banned now.
        """
        self._refresh(cursor)
        ends = [self._players.get(player, 0.0)] if player is not None else []
        number, bits = _number(address)
        for (of_bits, prefix), networks in self._networks.items():
            if of_bits == bits:
                ends.append(networks.get(number >> (bits - prefix), 0.0))
        end = max(ends, default=0.0)
        return end if end > now else None

    def version(self, cursor: sqlite3.Cursor) -> tuple[int, int]:
        """What changes whenever a ban does."""
        row = cursor.execute("SELECT value FROM bans_version").fetchone()
        if row is None or not isinstance(row[0], int):
            # Somebody has spoiled it, and a ban may not change it: so it changes now.
            self.forget()
            return self._database, 0
        return self._database, row[0]

    def _refresh(self, cursor: sqlite3.Cursor) -> None:
        version = self.version(cursor)
        if version == self._version:
            return
        self._players.clear()
        self._networks.clear()
        for kind, subject, expires_at in cursor.execute(
            "SELECT kind, subject, expires_at FROM bans ORDER BY kind, subject"
        ):
            until = float(expires_at) if isinstance(expires_at, int | float) else math.inf
            if kind == "player":
                self._players[subject] = until
            elif kind == "address":
                self._add_network(subject, until)
        self._version = version

    def _add_network(self, subject: object, until: float) -> None:
        try:
            network = ip_network(str(subject).strip(), strict=False)
        except ValueError:
            start = str(subject)[:_SUBJECT_SHOWN]
            if start not in self._told and len(self._told) < _TOLD_MAX:
                self._told.add(start)
                self._log.warn("a banned address is no IP or CIDR: {subject!r}", subject=start)
            return
        bits, prefix = network.max_prefixlen, network.prefixlen
        number = int(network.network_address)
        mapped = getattr(network.network_address, "ipv4_mapped", None)
        if mapped is not None and prefix >= 96:
            bits, prefix, number = 32, prefix - 96, int(mapped)
        networks = self._networks.setdefault((bits, prefix), {})
        key = number >> (bits - prefix)
        networks[key] = max(until, networks.get(key, 0.0))


def _number(address: str) -> tuple[int, int]:
    """An address as a number and its width in bits; width 0 for what is no IP, as a UNIX socket."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return 0, 0
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return int(parsed), parsed.max_prefixlen
