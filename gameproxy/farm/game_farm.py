"""The farm of one proxy: everything of it, joined."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gameproxy.config import Config, ServerConfig
from gameproxy.farm import orders, registry, reports, restoring
from gameproxy.farm.bans import Bans
from gameproxy.farm.chance import stream_of
from gameproxy.farm.database import Operation
from gameproxy.farm.keeper import ServerKeeper, Starter
from gameproxy.farm.placement import Placement, refusal_of
from gameproxy.farm.processes import Processes
from gameproxy.farm.pulse import TOLD_FOR, Pulse
from gameproxy.farm.reaper import Reaper
from gameproxy.farm.registry import PROXY_LIFE
from gameproxy.farm.selection import Selector, StrategySelector
from gameproxy.farm.slots import SlotTable
from gameproxy.farm.store import FarmStore
from gameproxy.farm.survey import Surveyor
from gameproxy.interfaces import AttemptFailed, Entropy, Slot, SlotRequest, Waiting
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.sites import FARM_UNHEARD_CHANGE, Disturbs, never

T = TypeVar("T")


class GameFarm:
    """The farm as one proxy sees it; implements :class:`gameproxy.interfaces.Farm`.

    :param config: selection, games, servers and duplicates are looked at.
    :param store: not yet used by anybody else.
    :param reactor: provides IReactorTime and IReactorFromThreads.
    :param key_for: gives a game server's 32-byte key.
    :param on_evict: called with a session of this proxy that has to end, and why; once for each.
    :param on_doubt: called with a session of this proxy that keeps its player out: its client may be gone.
    :param selector: picks game servers in place of the configured strategy.
    :param disturbs: asked at the farm's sites but the store's.
    """

    def __init__(
        self,
        config: Config,
        store: FarmStore,
        starter: Starter,
        processes: Processes,
        reactor: Any,
        entropy: Entropy,
        key_for: Callable[[str], bytes],
        on_evict: Callable[[str, Refusal], None],
        on_doubt: Callable[[str], None],
        selector: Selector | None = None,
        disturbs: Disturbs = never,
    ) -> None:
        self.proxy = f"proxy-{entropy(6).hex()}"
        self._store = store
        self._processes = processes
        self._reactor = reactor
        self._database_entropy = stream_of(entropy(32))
        self._selector = selector
        self._disturbs = disturbs
        self._bans = Bans()
        self._pulse = Pulse(self.proxy, reactor.seconds)
        self._surveyor = Surveyor(self.proxy, self._pulse, self._bans, processes)
        self._keeper = ServerKeeper(
            self.proxy, store, starter, processes, reactor, entropy, self._changed, disturbs
        )
        self._configure(config)
        self._placement = Placement(
            config, self._table, store, reactor, key_for, self._keeper.start, on_evict, on_doubt
        )
        self._reaper = Reaper(
            self.proxy,
            store,
            self._keeper,
            self._surveyor,
            self._pulse,
            reactor,
            self._placement.evict,
            self._placement.doubt,
            self._looked,
        )
        store.restore = self._restore
        store.is_restored = self._pulse.is_there

    def start(self) -> Deferred[None]:
        """Open the database, register this proxy and its ``[[servers]]``, and begin the upkeep.

        :return: fires when that is done; fails with StoreError or StoreUnavailable.
        """
        return self._store.write(lambda cursor: None).addCallback(self._started)

    def list_servers(self, servers: Sequence[ServerConfig]) -> Deferred[None]:
        """Have these in the database in place of those of ``[[servers]]``, for a configuration that follows at once.

        :return: fires when it is done; fails with StoreError or StoreUnavailable, and then nothing has changed.
        """
        return self._store.write(lambda cursor: registry.list_servers(cursor, self.proxy, servers))

    def reconfigure(self, config: Config) -> Deferred[None]:
        """Go on with a changed configuration: selection, games, servers and duplicates count from now on.

        :return: fires when ``[[servers]]`` are in the database, however long that takes.
        """
        self._configure(config)
        self._placement.configure(config, self._table)
        listed = self._store.must(
            lambda cursor: registry.list_servers(cursor, self.proxy, config.servers),
            "listing game servers",
        )
        return listed.addCallbacks(lambda _: self._looked(), _told)

    def stop(self) -> Deferred[None]:
        """Give back all slots of this proxy, and close the database. Game servers go on."""
        self._reaper.stop()
        self._keeper.close()
        self._placement.stop()
        leave = self._store.must(
            lambda cursor: registry.remove_proxies(cursor, [self.proxy]), "leaving the farm"
        )
        leave.addErrback(_told)
        return self._store.close()

    # gameproxy.interfaces.Farm

    def acquire(
        self, request: SlotRequest, on_waiting: Callable[[Waiting], None]
    ) -> Deferred[Slot]:
        """Take a slot, or wait in the queue for one."""
        return self._placement.acquire(request, on_waiting)

    def try_another(
        self, slot: Slot, failure: AttemptFailed, on_waiting: Callable[[Waiting], None]
    ) -> Deferred[Slot]:
        """Give back a slot whose game server did not let the session in, and take another."""
        return self._placement.try_another(slot, failure, on_waiting)

    def relaying(self, slot: Slot) -> None:
        """The session relays from now on."""
        self._placement.relaying(slot)

    def release(self, session: str) -> None:
        """The session is over."""
        self._placement.release(session)

    def ban(self, player: str, seconds: float, reason: str, actor: str) -> None:
        """Ban a player on all proxies of the farm; a longer ban stays as it is."""
        self.ban_subject("player", player, seconds, reason, actor)

    # For admission and for operators

    def check_address(self, address: str) -> Deferred[None]:
        """Fails with Refusal (``banned``, ``internal``) when that IP may not connect."""
        now = self._reactor.seconds()
        checked = self._store.read(
            lambda cursor: self._table.check_bans(cursor, None, address, now)
        )
        return checked.addErrback(lambda failure: Failure(refusal_of(failure)))

    def ban_subject(
        self, kind: str, subject: str, seconds: float | None, reason: str, actor: str
    ) -> Deferred[None]:
        """Ban a ``player``, or an ``address`` (an IP or CIDR), for so long; ``None`` for ever.

        :return: fires when it is written, however long that takes.
        """
        now = self._reactor.seconds()
        until = None if seconds is None else now + seconds
        written = self._store.must(
            lambda cursor: registry.ban(cursor, kind, subject, reason, actor, now, until),
            "banning",
        )
        return written.addErrback(_told)

    def start_server(self, game: str) -> Deferred[str]:
        """Start a game server now.

        :return: fires with its id; fails with Refusal: ``unknown_game`` for a game that is not started here,
            ``no_server`` when there are as many as there may be, ``internal``.
        """
        now, table = self._reactor.seconds(), self._table

        def started(server: str) -> str:
            self._keeper.start(server, table.games[game])
            return server

        made = self._store.write(lambda cursor: table.make_server(cursor, game, now))
        return made.addCallbacks(started, lambda failure: Failure(refusal_of(failure)))

    def drain_server(self, server: str) -> Deferred[bool]:
        """Let nobody else onto a game server; whether it was ready or lost."""
        return self._store.write(lambda cursor: orders.drain(cursor, server))

    def stop_server(self, server: str) -> Deferred[bool]:
        """Ask a started game server to end, and make it after its grace; whether there is such a one."""
        return self._keeper.stop(server)

    def read(self, operation: Operation[T]) -> Deferred[T]:
        """What the tables say: one of :mod:`gameproxy.farm.reports`; fails with StoreError or StoreUnavailable."""
        return self._store.read(operation)

    def write(self, operation: Operation[T]) -> Deferred[T]:
        """Have something ordered: one of :mod:`gameproxy.farm.orders`; else as :meth:`read`."""
        return self._store.write(operation)

    @property
    def in_trouble(self) -> bool:
        """Whether the database did not take what was written last."""
        return self._store.in_trouble

    def stats(self) -> Deferred[dict[str, object]]:
        """``farm``: the sums over all game servers; ``queue``: its ``length``."""
        return self._store.read(
            lambda cursor: {
                "queue": {"length": reports.queue_length(cursor)},
                "farm": reports.farm_stats(cursor),
            }
        )

    def servers(self) -> Deferred[list[dict[str, object]]]:
        """The game servers that are not closed."""
        return self._store.read(reports.server_rows)

    def proxies(self) -> Deferred[list[str]]:
        """The ids of the proxies that take part in the farm."""
        return self._store.read(
            lambda cursor: [str(row["id"]) for row in reports.proxy_rows(cursor)]
        )

    def bans(self) -> Deferred[list[dict[str, object]]]:
        """The bans that are not over."""
        now = self._reactor.seconds()
        return self._store.read(lambda cursor: reports.ban_rows(cursor, now))

    def unban(self, kind: str, subject: str) -> Deferred[bool]:
        """Lift a ban; whether there was one. ``subject`` is written as it was banned."""
        return self._store.write(lambda cursor: registry.unban(cursor, kind, subject))

    def kick(self, player: str) -> Deferred[int]:
        """End all sessions of a player, at all proxies, within a second; how many there are."""
        return self._store.write(lambda cursor: registry.kick(cursor, player))

    # What the rooms of the farm tell each other

    def _configure(self, config: Config) -> None:
        self._config = config
        games = {game.name: game for game in config.games}
        self._keeper.games = games
        self._surveyor.listed = config.servers
        self._table = SlotTable(
            proxy=self.proxy,
            games=games,
            duplicates=config.auth.duplicates,
            queue_size=config.selection.queue_size,
            max_load=config.selection.max_load,
            selector=self._selector
            or StrategySelector(
                config.selection.strategy, config.selection.max_load, self._database_entropy
            ),
            bans=self._bans,
            entropy=self._database_entropy,
        )

    def _started(self, _: None) -> None:
        self._reaper.start()
        self._keep_warm()

    def _changed(self, game: str) -> None:
        if not self._disturbs(FARM_UNHEARD_CHANGE):
            self._placement.look(game)

    def _looked(self) -> None:
        self._placement.look_at_all()
        self._keep_warm()

    def _keep_warm(self) -> None:
        for game in self._config.games:
            if self._keeper.count_warm(game.name) < game.min_ready:
                self._placement.serve(game.name)

    # In the database's thread

    def _restore(self, cursor: sqlite3.Cursor) -> Callable[[], None]:
        """Put in what must be there."""
        now = self._reactor.seconds()
        # In a backup the rows of those who have not put back theirs yet are of no use to anybody. But where all is as
        # it was left, what kept this proxy from giving signs of life kept others too.
        life = TOLD_FOR if self._pulse.is_another(cursor) else PROXY_LIFE
        is_as_left = self._pulse.is_found(cursor)
        registry.register_proxy(cursor, self.proxy, self._processes, now)
        if not is_as_left:
            registry.remove_old_proxies(cursor, now - life)
        self._pulse.begin(now)
        registry.list_servers(cursor, self.proxy, self._config.servers)
        slots = self._placement.rows()
        # Those of other proxies too, which may come later than this one's sessions on them.
        servers = restoring.as_used(self._keeper.living(), slots)
        restoring.restore_servers(cursor, self.proxy, servers)
        registry.adopt_servers(cursor, self.proxy)
        homeless, strays = restoring.restore_slots(cursor, self.proxy, slots, now)
        self._bans.forget()
        found = registry.started_servers(cursor)

        def restored() -> None:
            self._keeper.know(found)
            for session in homeless:
                self._placement.evict(session, CloseReason.INTERNAL)
            self._placement.give_back(strays)

        return restored


def _told(failure: Failure) -> None:
    """The store has logged it."""
