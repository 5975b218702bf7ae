"""What simulated game servers run: the real :mod:`gameproxy.gameserver`, with a game that sends each frame back."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from gameproxy.gameserver import Game, GameServer, Place, Player
from gameproxy.interfaces import Reactor
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.simulation.chance import entropy
from gameproxy.simulation.ledger import Ledger
from gameproxy.simulation.reactor import SimReactor


@dataclass(frozen=True, slots=True)
class Temper:
    """How a game server behaves.

    :param start_delay: seconds from its program's start until it listens; ``None``: it never does.
    :param exits: seconds from its program's start until it ends by itself.
    :param wrong_key: whether it proves itself with a key that is not its own.
    :param load: what it reports, whoever is in.
    """

    start_delay: float | None = 0.0
    exits: float | None = None
    wrong_key: bool = False
    load: float | None = None


class EchoGame(Game):
    """Sends each frame back, and has the ledger hear of all."""

    def __init__(self, server: str, ledger: Ledger) -> None:
        self._server = server
        self._ledger = ledger

    def joined(self, player: Player) -> None:
        self._ledger.player_joined(self._server, player.session)

    def received(self, player: Player, body: bytes) -> None:
        self._ledger.frame_received(self._server, player.session, body)
        player.send(body)

    def left(self, player: Player) -> None:
        self._ledger.player_left(self._server, player.session)


def run_echo(
    reactor: SimReactor,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    ledger: Ledger,
    temper: Temper,
) -> None:
    """The program ``echo``: a started game server.

    :param temper: how this one behaves.
    """
    process = reactor.process
    place = Place.from_environment(environment)
    if temper.wrong_key:
        place = replace(place, key=bytes(len(place.key)))
    if temper.exits is not None:
        reactor.callLater(temper.exits, process.end, 1)
    if temper.start_delay is not None:
        reactor.callLater(temper.start_delay, serve_echo, reactor, place, ledger, temper)


def serve_echo(reactor: SimReactor, place: Place, ledger: Ledger, temper: Temper) -> GameServer:
    """Run a game server until it ends, and its process with it."""
    process = reactor.process
    loop = TwistedLoop(cast(Reactor, reactor))
    chance = entropy(process.kernel.seed, "game server", process.machine.name, process.pid)
    server = GameServer(EchoGame(place.server, ledger), place, loop, entropy=chance)
    server.load = temper.load
    process.signal_handlers[signal.SIGTERM] = server.drain

    def ended(_: Any) -> None:
        process.end(0)

    def failed(failure: Any) -> None:
        process.kernel.write("failed", process.name, type(failure.value).__name__)
        process.end(1)

    loop.txaio.add_callbacks(loop.txaio.as_future(server.serve), ended, failed)
    return server
