"""What the upkeep must know of the farm: read when the database has changed, and else known still."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gameproxy.config import ServerConfig
from gameproxy.farm import orders, registry
from gameproxy.farm.bans import Bans
from gameproxy.farm.processes import Processes, ProcessName
from gameproxy.farm.pulse import Pulse
from gameproxy.farm.registry import ProxyRow, StartedServer
from gameproxy.farm.sweep import next_sweep
from gameproxy.reasons import CloseReason


@dataclass(frozen=True, slots=True)
class Survey:
    """The farm as it is now.

    :param evicted: sessions of this proxy that have to end, and why.
    :param doubted: sessions of this proxy that keep their players out, and since when.
    :param others: the other proxies.
    :param listed: whether the servers that this proxy lists are listed by one that takes part.
    :param next_sweep: when there is something to sweep away, seconds since the epoch.
    :param ended: of the processes of all these servers and proxies, those that have certainly ended.
    """

    evicted: list[tuple[str, CloseReason]]
    doubted: list[tuple[str, float]]
    bans_version: tuple[int, int]
    servers: list[StartedServer]
    others: list[ProxyRow]
    listed: bool
    next_sweep: float
    ended: frozenset[ProcessName] = frozenset()


class Surveyor:
    """Makes the surveys. Used in the database's thread.

    :param pulse: this proxy's signs of life, which change nothing of what a survey shows.
    :ivar listed: ``[[servers]]`` of the configuration.
    """

    def __init__(self, proxy: str, pulse: Pulse, bans: Bans, processes: Processes) -> None:
        self.listed: Sequence[ServerConfig] = ()
        self._proxy = proxy
        self._pulse = pulse
        self._bans = bans
        self._processes = processes
        self._version: object = None
        """What the database was like at the last look."""
        self._read_at: object = None
        """What it was like when ``_survey`` was read, or before."""
        self._survey: Survey | None = None

    def look(self, cursor: sqlite3.Cursor) -> Survey | None:
        """Look whether the database has changed, with one statement, and at the processes.

        :return: what is still so; ``None`` when it has changed and has to be read.
        """
        connection = cursor.connection
        (others,) = cursor.execute("PRAGMA data_version").fetchone()
        # Both numbers mean something for this connection alone: one changes with other connections' commits, the other
        # with what this one does.
        self._version = (connection, others, connection.total_changes - self._pulse.count)
        if self._survey is None or self._version != self._read_at:
            return None
        return self._judge(self._survey)

    def read(
        self, cursor: sqlite3.Cursor, bans_known: tuple[int, int] | None, now: float
    ) -> Survey | None:
        """Read what has changed, in a transaction after a :meth:`look`.

        :param bans_known: the version of the bans that all sessions were held against.
        :return: ``None`` when this proxy's last sign of life is not there: what else it knows to be there has to be put
            back first, as any transaction does that may write.
        """
        proxies = registry.proxies(cursor)
        if not any(p.id == self._proxy and self._pulse.is_last(p.beat) for p in proxies):
            return None
        # The version is the look's: what was written since shows at the next one.
        read_at = self._version
        evicted = registry.evicted_sessions(cursor, self._proxy)
        bans_version = self._bans.version(cursor)
        if bans_version != bans_known:
            evicted += self._banned_sessions(cursor, now)
        self._survey = Survey(
            evicted,
            orders.doubted_sessions(cursor, self._proxy),
            bans_version,
            registry.started_servers(cursor),
            [proxy for proxy in proxies if proxy.id != self._proxy],
            registry.are_listed(cursor, self.listed),
            next_sweep(cursor, now),
        )
        self._read_at = read_at
        return self._judge(self._survey)

    def _banned_sessions(self, cursor: sqlite3.Cursor, now: float) -> list[tuple[str, CloseReason]]:
        slots = cursor.execute(
            "SELECT session, player, address FROM slots WHERE proxy = ? ORDER BY arrival",
            (self._proxy,),
        ).fetchall()
        return [
            (session, CloseReason.BANNED)
            for session, player, address in slots
            if self._bans.banned_until(cursor, player, address, now) is not None
        ]

    def _judge(self, survey: Survey) -> Survey:
        """No table tells when a process ends."""
        processes = [proxy.process for proxy in survey.others]
        processes += [server.process for server in survey.servers]
        ended = frozenset(p for p in processes if p is not None and self._processes.is_gone(p))
        return replace(survey, ended=ended)
