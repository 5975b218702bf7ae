"""``gameproxy demo``: a proxy, a farm with started game servers, and bots that play, all at once."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from gameproxy.arena.bots import Crowd
from gameproxy.cli.demo_view import ServerRow, Snapshot, View, in_words, view_for
from gameproxy.cli.running import ProgramReactor, run_reactor
from gameproxy.cli.terminal import printable
from gameproxy.config import AuthConfig, Config, GameConfig, ProxyConfig
from gameproxy.interfaces import Entropy, Reactor
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.metrics import by_state, traffic_of
from gameproxy.service import GameProxy

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers

BOTS: Final = 10
CAPACITY: Final = 4
"""Sessions of one game server: the bots need three of them."""
SEED: Final = 1
"""Of the bots' chance: each demo is like the last."""
STOP_GRACE: Final = 2.0
STOP_LOOKS: Final = 100
STOP_LOOK_INTERVAL: Final = 0.1
"""How often, and how many seconds apart, to look whether all game servers have ended."""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``demo`` to the commands."""
    parser = subparsers.add_parser(
        "demo",
        help="proxy, farm, started game servers and bots, all in one",
        description=f"Shows a proxy at work: it starts game servers of a small game for {BOTS} bots that come and go."
        " All is in a temporary folder and listens on this machine alone.",
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        type=_seconds,
        metavar="SECONDS",
        help="end after so long (default: at Ctrl-C)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show a proxy at work: 0; or, when a bot saw what it should not see, say that: 1."""
    _log_errors()
    with TemporaryDirectory(prefix="gameproxy-demo-") as folder:
        return run_reactor(partial(_main, Path(folder), args.seconds))


async def _main(folder: Path, seconds: float | None, reactor: ProgramReactor) -> int:
    chance = Random(SEED).randbytes  # noqa: S311 - the bots are to be alike, not safe
    demo = Demo(reactor, folder, partial(view_for, sys.stdout, _program()), chance)
    reactor.addSystemEventTrigger("before", "shutdown", demo.end)
    return report(await demo.run(seconds))


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a demo.

    :param last: how it stood at the end.
    :param troubles: what went wrong.
    """

    last: Snapshot
    troubles: list[str]


class Demo:
    """A proxy, its farm, and bots.

    :param folder: where the farm's database, its secret and the game servers' logs go.
    :param view_for: gives the view, when it is known where the proxy listens.
    :param entropy: chance for the bots; the keys have better.
    """

    def __init__(
        self,
        reactor: Reactor,
        folder: Path,
        view_for: Callable[[str], View],
        entropy: Entropy,
    ) -> None:
        self._reactor = reactor
        self._view_for = view_for
        self._entropy = entropy
        self._proxy = GameProxy(_configuration(folder), reactor)
        self._started_at = reactor.seconds()
        self._troubles: list[str] = []
        self._enough: Deferred[None] = Deferred()
        self._over: Deferred[None] = Deferred()

    async def run(self, seconds: float | None) -> Result:
        """Let it all run, and tidy up.

        :param seconds: for how long; ``None``: until :meth:`end`.
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
        return self._over

    async def _run(self, seconds: float | None) -> Result:
        self._proxy.startService()
        try:
            await self._proxy.started
            try:
                await self._play(seconds)
            finally:
                await self._stop_servers()
        finally:
            await self._proxy.stopService()
        return Result(self._snapshot([]), self._troubles)

    async def _play(self, seconds: float | None) -> None:
        address = cast(IPv4Address, self._proxy.ports[0].getHost())
        loop = TwistedLoop(self._reactor)
        crowd = Crowd(loop, address.host, address.port, self._entropy, self._trouble)
        view = self._view_for(f"{address.host}:{address.port}")
        looking = LoopingCall(lambda: Deferred.fromCoroutine(self._look(view)))
        looking.clock = self._reactor
        looking.start(view.interval).addErrback(self._cannot_show)
        ending = None if seconds is None else self._reactor.callLater(seconds, self.end)
        crowd.add(BOTS)
        await self._enough
        if ending is not None and ending.active():
            ending.cancel()
        if looking.running:
            looking.stop()
        view.close()
        await crowd.stop()

    async def _look(self, view: View) -> None:
        rows = await self._proxy.farm.servers()
        if not self._enough.called:
            view.show(self._snapshot(rows))

    def _snapshot(self, rows: list[dict[str, object]]) -> Snapshot:
        proxy = self._proxy
        return Snapshot(
            seconds=self._reactor.seconds() - self._started_at,
            servers=[_server_row(row) for row in rows],
            sessions=by_state(proxy.sessions),
            ended={reason.value: count for reason, count in proxy.metrics.ended.items()},
            traffic=proxy.metrics.traffic + traffic_of(proxy.sessions),
        )

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
        self._troubles.append("some game servers did not stop")

    def _cannot_show(self, failure: Failure) -> None:
        self._trouble(f"nothing can be shown: {failure.getErrorMessage()}")

    def _trouble(self, text: str) -> None:
        self._troubles.append(text)
        self.end()


def _configuration(folder: Path) -> Config:
    arena = GameConfig(
        name="arena",
        command=(sys.executable, "-m", "gameproxy.arena"),
        capacity=CAPACITY,
        max_servers=5,
        stop_when_idle=20.0,
        stop_grace=STOP_GRACE,
    )
    proxy = ProxyConfig(
        listen=("tcp:0:interface=127.0.0.1",), max_sessions=100, drain_grace=STOP_GRACE
    )
    return Config(proxy=proxy, auth=AuthConfig(guests=True), games=(arena,), folder=folder)


def _server_row(row: Mapping[str, object]) -> ServerRow:
    count = {name: int(str(row[name])) for name in ("capacity", "connections", "reserved")}
    return ServerRow(
        str(row["id"]), str(row["state"]), added=int(str(row["connections_added"])), **count
    )


def report(result: Result) -> int:
    """Print what came of a demo, and give the exit status."""
    last = result.last
    print(
        f"Done in {last.seconds:.0f} s: {sum(last.ended.values())} sessions"
        f" ({in_words(last.ended) or 'none'}),"
        f" {last.traffic.client_frames} frames from players, {last.traffic.server_frames} to them."
    )
    for trouble in result.troubles:
        print(printable(f"Trouble: {trouble}"), file=sys.stderr)
    return 1 if result.troubles else 0


def _program() -> str:
    """How this command was called."""
    return sys.argv[0] if Path(sys.argv[0]).name == "gameproxy" else "python -m gameproxy"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (math.isfinite(seconds) and seconds > 0):
        raise argparse.ArgumentTypeError("must be a number of seconds, more than 0")
    return seconds


def _log_errors() -> None:
    """Let errors, and nothing else, be seen on standard error."""
    only_errors = LogLevelFilterPredicate(LogLevel.error)
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [only_errors])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
