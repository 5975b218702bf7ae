"""What ``gameproxy demo`` shows: a proxy, its farm with started game servers, bots that play, and a probe."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from gameproxy.arena.bots import Crowd
from gameproxy.cli.demo_controls import Controls
from gameproxy.cli.demo_facts import Chronicle, History, ServerRow, Snapshot, rows_of, set_up_of
from gameproxy.cli.demo_probe import Probe, Target
from gameproxy.cli.demo_tide import Tide, ebb_and_flow
from gameproxy.cli.demo_view import Audience, View
from gameproxy.cli.terminal import printable
from gameproxy.config import AuthConfig, Config, GameConfig, ProxyConfig
from gameproxy.farm.starter import key_file
from gameproxy.interfaces import Entropy, Reactor, Traffic
from gameproxy.keys import KeyFileError, read_key_file
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.metrics import by_state, traffic_of
from gameproxy.reasons import CloseReason
from gameproxy.service import GameProxy

BOTS_MAX: Final = 120
CAPACITY: Final = 8
"""Sessions of one game server."""
SERVERS_MAX: Final = 20
"""Game servers of the arena: those that drain hold bots too."""
IDLE: Final = 4.0
"""Seconds after which a game server that nobody plays on is stopped."""
SET_UPS_SHOWN: Final = 100
"""The last bots to come in, whose times are shown."""
STOP_GRACE: Final = 2.0
STOP_LOOKS: Final = 100
STOP_LOOK_INTERVAL: Final = 0.1
"""How often, and how many seconds apart, to look whether all game servers have ended."""
TIDE_INTERVAL: Final = 0.25
_ARENA: Final = "arena"
_ECHO: Final = "echo"


class Demo:
    """A proxy, its farm, bots and a probe.

    :param folder: where the farm's database, its secret and the game servers' logs go.
    :param view_for: gives the view, when it is known where the proxy listens, for those who watch.
    :param entropy: chance for the bots; the keys have better.
    :param trouble: called with what goes wrong.
    :param bots: how many there are, at high tide.
    :param part: what part of them is to play so many seconds after the start.
    :ivar servers: the game servers, as they are shown.
    """

    _crowd: Crowd
    _tide: Tide
    _probe: Probe

    def __init__(
        self,
        reactor: Reactor,
        folder: Path,
        view_for: Callable[[str, Audience], View],
        entropy: Entropy,
        trouble: Callable[[str], None],
        bots: int,
        part: Callable[[float], float] = ebb_and_flow,
    ) -> None:
        self.servers: Sequence[ServerRow] = ()
        self._reactor = reactor
        self._view_for = view_for
        self._entropy = entropy
        self._bots = bots
        self._part = part
        self._config = _configuration(folder)
        self._proxy = GameProxy(self._config, reactor)
        self._started_at = reactor.seconds()
        self._on_trouble = trouble
        self._troubles = 0
        self._killed = 0  # bots that may be cut off, as their game server was killed
        self._cut_off = 0  # bots that were
        self._history = History()
        self._chronicle = Chronicle()
        self._controls = Controls(self, self._say)
        self._frozen: Snapshot | None = None  # while it is paused
        self._view: View | None = None
        self._enough: Deferred[None] = Deferred()
        self._over: Deferred[None] = Deferred()

    async def run(self, seconds: float | None) -> Snapshot:
        """Let it all run, and tidy up.

        :param seconds: for how long; ``None``: until :meth:`end`.
        :return: how it stood at the end.
        """
        try:
            return await self._run(seconds)
        finally:
            self._over.callback(None)

    def end(self) -> Deferred[None]:
        """End it before its time.

        :return: fires when nothing is left of it.
        """
        if not self._enough.called:
            self._enough.callback(None)
        over: Deferred[None] = Deferred()
        self._over.chainDeferred(over)
        return over

    # What those who watch do (demo_view.Audience)

    def press(self, key: str) -> None:
        """A key was pressed."""
        self._controls.press(key)
        self._show()

    def leave(self) -> None:
        """Nobody watches any more."""
        self.end()

    # What their keys do (demo_controls.Stage)

    def kill(self, server: ServerRow) -> bool:
        """End a game server as a crash does."""
        if server.pid is None:
            return False
        on_it = sum(
            session.slot is not None and session.slot.server == server.id
            for session in self._proxy.sessions
        )
        try:
            os.kill(server.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        if server.game == _ARENA:
            self._killed += on_it
        return True

    def drain(self, server: ServerRow) -> None:
        """Let nobody else onto a game server."""
        self._proxy.farm.drain_server(server.id).addErrback(self._failed)

    def change_bots(self, difference: int) -> int:
        """Have more or fewer bots."""
        self._tide.most = min(max(self._tide.most + difference, 0), BOTS_MAX)
        return self._tide.most

    # Its life

    async def _run(self, seconds: float | None) -> Snapshot:
        self._proxy.startService()
        try:
            await self._proxy.started
            await self._play(seconds)
        finally:
            await self._proxy.stopService()
        return self._snapshot()

    async def _play(self, seconds: float | None) -> None:
        address = cast(IPv4Address, self._proxy.ports[0].getHost())
        loop, place = TwistedLoop(self._reactor), (address.host, address.port)
        self._crowd = Crowd(loop, *place, self._entropy, self._bot_trouble, _ARENA)
        self._tide = Tide(self._crowd, self._bots, self._part)
        self._probe = Probe(loop, *place, _ECHO, self._find, os.urandom)
        view = self._view = self._view_for(f"{address.host}:{address.port}", self)
        ending = None if seconds is None else self._reactor.callLater(seconds, self.end)
        regularly = [
            self._every(1.0, self._remember),
            self._every(view.interval, lambda: Deferred.fromCoroutine(self._look())),
        ]
        try:
            flowing = self._every(TIDE_INTERVAL, lambda: self._tide.move(self._seconds()))
            self._probe.start()
            try:
                await self._enough
            finally:
                if ending is not None and ending.active():
                    ending.cancel()
                _stop(flowing)
                await self._probe.stop()
                await self._crowd.stop()
                await self._stop_servers()
        finally:
            for one in regularly:
                _stop(one)
            view.close()
            self._view = None

    async def _look(self) -> None:
        farm = await self._proxy.farm.servers()
        self.servers = rows_of(farm, self._reactor.seconds())
        self._chronicle.look(self._seconds(), self.servers)
        self._show()

    def _show(self) -> None:
        if self._view is None:
            return
        if not self._controls.paused:
            self._frozen = None
        elif self._frozen is None:
            self._frozen = self._snapshot()
        shown = self._frozen or self._snapshot()
        try:
            self._view.show(
                replace(
                    shown,
                    events=tuple(self._chronicle.events),
                    selected=self._controls.selected,
                    paused=self._controls.paused,
                    troubles=self._troubles,
                    ending=self._enough.called,
                )
            )
        except OSError as error:
            self._view.close()
            self._view = None
            self._trouble(f"nothing can be shown: {error}")
            self.end()

    def _remember(self) -> None:
        self._history.add(self._seconds(), self._traffic(), len(self._proxy.sessions))

    def _traffic(self) -> Traffic:
        return self._proxy.metrics.traffic + traffic_of(self._proxy.sessions)

    def _seconds(self) -> float:
        return self._reactor.seconds() - self._started_at

    def _snapshot(self) -> Snapshot:
        proxy = self._proxy
        playing = self._crowd.statistics
        return Snapshot(
            seconds=self._seconds(),
            servers=self.servers,
            sessions=by_state(proxy.sessions),
            ended={reason.value: count for reason, count in proxy.metrics.ended.items()},
            traffic=self._traffic(),
            bots=len(self._crowd),
            bots_most=self._tide.most,
            minute=self._history.minute,
            set_up=set_up_of(list(islice(reversed(playing.set_up_times), SET_UPS_SHOWN))),
            round_trip=self._probe.round_trip,
        )

    async def _find(self, id: str) -> Target | None:
        """How to get onto a game server with no proxy between."""
        try:
            key = read_key_file(key_file(self._config.database_path, id))
        except KeyFileError:
            return None  # it has ended
        for row in await self._proxy.farm.servers():
            if row["id"] == id:
                return Target(str(row["host"]), int(str(row["port"])), key)
        return None

    async def _stop_servers(self) -> None:
        """Game servers outlive their proxy; those of a demo must not."""
        asked: dict[str, None] = {}
        for _ in range(STOP_LOOKS):
            may_start_more = len(self._proxy.sessions) > 0
            rows = await self._proxy.farm.servers()
            if not rows and not may_start_more:
                return
            for id in (str(row["id"]) for row in rows):
                if id not in asked:
                    asked[id] = None
                    await self._proxy.farm.stop_server(id)
            await deferLater(self._reactor, STOP_LOOK_INTERVAL)
        self._trouble("some game servers did not stop")

    def _every(self, seconds: float, call: Callable[[], object]) -> LoopingCall:
        looping = LoopingCall(call)
        looping.clock = self._reactor
        looping.start(seconds).addErrback(self._failed)
        return looping

    def _say(self, text: str) -> None:
        self._chronicle.say(self._seconds(), text)

    # What goes wrong

    def _bot_trouble(self, text: str) -> None:
        cut_off = self._crowd.statistics.cut_off.get(CloseReason.SERVER_LOST, 0)
        is_cut_off, self._cut_off = cut_off > self._cut_off, cut_off
        if is_cut_off and self._killed > 0:
            self._killed -= 1
        else:
            self._trouble(text)

    def _failed(self, failure: Failure) -> None:
        self._trouble(f"the demo has failed: {failure.getErrorMessage()}")
        self.end()

    def _trouble(self, text: str) -> None:
        self._troubles += 1
        self._say(f"trouble: {printable(text)}")
        self._on_trouble(text)


def _stop(looping: LoopingCall) -> None:
    if looping.running:
        looping.stop()


def _configuration(folder: Path) -> Config:
    arena = GameConfig(
        name=_ARENA,
        command=(sys.executable, "-m", "gameproxy.arena"),
        capacity=CAPACITY,
        max_servers=SERVERS_MAX,
        stop_when_idle=IDLE,
        stop_grace=STOP_GRACE,
    )
    echo = GameConfig(
        name=_ECHO,
        command=(sys.executable, "-m", "gameproxy.arena.echo"),
        capacity=4,
        max_servers=2,
        stop_when_idle=IDLE,
        stop_grace=STOP_GRACE,
    )
    proxy = ProxyConfig(
        listen=("tcp:0:interface=127.0.0.1",), max_sessions=2 * BOTS_MAX, drain_grace=STOP_GRACE
    )
    return Config(proxy=proxy, auth=AuthConfig(guests=True), games=(arena, echo), folder=folder)
