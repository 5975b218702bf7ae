"""What may not hold, and for how long, when the farm's database is deleted or gives way to a backup."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from gameproxy.farm.database import Restore

if TYPE_CHECKING:
    from gameproxy.simulation.world import SimProxy, Simulation


class Replacement:
    """Hears when the database is replaced, and when proxies have put back what they know.

    - Which tickets were used, and who is banned, is forgotten, or as in the backup.
    - Where several proxies are on the farm, others may give away a session's slot until its own has put it back.
    - A game server that is known by no proxy that lives may go on without a row: if it has not come so far as to look
      for one, nobody ever ends it.

    :ivar unknown: the pids of such game servers.
    """

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self._owing: dict[int, None] = {}
        """The proxies that have still to put back what they know, by their pids."""
        self._running: list[int] = []
        """The game servers that ran when the database was replaced, by their pids."""
        self.unknown: dict[int, None] = {}

    def happened(self) -> None:
        """The database is another one."""
        world = self._world
        query = "SELECT subject FROM bans WHERE kind = 'player' ORDER BY subject"
        bans = world.execute(query) if world.has_database else []
        shared = len(world.proxies) > 1
        sessions = [session.id for p in world.proxies for session in p.service.sessions]
        world.ledger.database_replaced((player for (player,) in bans), sessions if shared else ())
        processes = world.farm_machine.processes
        self._running = [pid for pid in world.game_servers if pid in processes]
        self._owing = {p.process.pid: None for p in world.proxies if p.process.alive}
        if not self._owing:
            self._forget_servers()

    def proxy_died(self, pid: int) -> None:
        """A proxy's process has ended."""
        if pid in self._owing:
            del self._owing[pid]
            self._forget_servers()

    def heard(self, proxy: SimProxy, restore: Restore) -> Restore:
        """A proxy's restore, of which the ledger hears what it has put back."""

        def heard(cursor: sqlite3.Cursor) -> Callable[[], None]:
            restored = restore(cursor)
            slots = dict(
                cursor.execute(
                    "SELECT session, server FROM slots WHERE proxy = ? AND server IS NOT NULL",
                    (proxy.service.farm.proxy,),
                )
            )

            def put_back() -> None:
                if restored is not None:
                    restored()
                self._owing.pop(proxy.process.pid, None)
                sessions = (session.id for session in proxy.service.sessions)
                self._world.ledger.slots_put_back(sessions, slots)

            return put_back

        return heard

    def _forget_servers(self) -> None:
        self.unknown |= dict.fromkeys(self._running)
