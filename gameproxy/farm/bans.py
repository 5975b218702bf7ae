"""Who is banned: the table of bans, read when it changes; of bans that were added, only these."""

from __future__ import annotations

import math
import sqlite3
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final

from twisted.logger import Logger

_SUBJECT_SHOWN: Final = 64
"""Characters of a banned address that is none, in the log."""
_TOLD_MAX: Final = 100
"""Most of them that the log gets."""
_ADDED_MAX: Final = 1000
"""Bans that were added, above which it is as good to read all."""
_ROWS: Final = "SELECT rowid, kind, subject, expires_at FROM bans "


class Bans:
    """Looks players and addresses up in the bans, at a cost that does not grow with their number.

    Used in the database's thread, within transactions.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._database = 0
        self._version: tuple[int, int] | None = None
        self._newest = 0  # rowid
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
        if not self._read_added(cursor, version):
            self._players.clear()
            self._networks.clear()
            self._newest = 0
            for row in cursor.execute(_ROWS + "ORDER BY kind, subject"):
                self._add(*row)
        self._version = version

    def _read_added(self, cursor: sqlite3.Cursor, version: tuple[int, int]) -> bool:
        """Read only what is new, if nothing else has changed; whether that is so."""
        if self._version is None or version[0] != self._version[0]:
            return False
        changes = version[1] - self._version[1]
        if not 0 < changes <= _ADDED_MAX:
            return False
        added = cursor.execute(
            _ROWS + "WHERE rowid > ? LIMIT ?", (self._newest, _ADDED_MAX + 1)
        ).fetchall()
        # Each was a change of its own: if there are as many, there were no others. But one that took another's place,
        # as INSERT OR REPLACE has it, is a change of one that is known.
        if len(added) != changes or any(
            self._is_known(kind, subject) for _, kind, subject, _ in added
        ):
            return False
        for row in added:
            self._add(*row)
        return True

    def _is_known(self, kind: object, subject: object) -> bool:
        if kind == "player":
            return subject in self._players
        if kind != "address":
            return False
        try:
            bits, prefix, key = _network(str(subject))
        except ValueError:
            return False
        return key in self._networks.get((bits, prefix), {})

    def _add(self, rowid: int, kind: object, subject: Any, expires_at: object) -> None:
        self._newest = max(self._newest, rowid)
        until = float(expires_at) if isinstance(expires_at, int | float) else math.inf
        if kind == "player":
            self._players[subject] = until
        elif kind == "address":
            self._add_network(subject, until)

    def _add_network(self, subject: object, until: float) -> None:
        try:
            bits, prefix, key = _network(str(subject))
        except ValueError:
            start = str(subject)[:_SUBJECT_SHOWN]
            if start not in self._told and len(self._told) < _TOLD_MAX:
                self._told.add(start)
                self._log.warn("a banned address is no IP or CIDR: {subject!r}", subject=start)
            return
        networks = self._networks.setdefault((bits, prefix), {})
        networks[key] = max(until, networks.get(key, 0.0))


def _network(subject: str) -> tuple[int, int, int]:
    """The width in bits, the prefix, and the bits of that, of the addresses that a ban is for.

    :raises ValueError: it is no IP or CIDR.
    """
    network = ip_network(subject.strip(), strict=False)
    bits, prefix = network.max_prefixlen, network.prefixlen
    number = int(network.network_address)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and prefix >= 96:
        bits, prefix, number = 32, prefix - 96, int(mapped)
    return bits, prefix, number >> (bits - prefix)


def _number(address: str) -> tuple[int, int]:
    """An address as a number and its width in bits; width 0 for what is no IP, as a UNIX socket."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return 0, 0
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return int(parsed), parsed.max_prefixlen
