"""What simulated game servers run: the real :mod:`gameproxy.gameserver`, with a game that sends each frame back."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from gameproxy.framing import FORMATS, Framer
from gameproxy.gameserver import Game, GameServer, Place, Player
from gameproxy.gameserver.farm_row import FarmRow
from gameproxy.handshake import MAC_BYTES, NONCE_BYTES
from gameproxy.interfaces import Reactor
from gameproxy.loops import Stream
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.messages import OWN_FRAME_MAX, Admitted, Challenge, FrameType, decode_admit
from gameproxy.simulation.chance import entropy
from gameproxy.simulation.ledger import Ledger
from gameproxy.simulation.machines import Process
from gameproxy.simulation.reactor import SimReactor


@dataclass(frozen=True, slots=True)
class Temper:
    """How a game server behaves.

    :param start_delay: seconds from its program's start until it listens; ``None``: it never does.
    :param exits: seconds from its program's start until it ends by itself.
    :param wrong_key: whether it proves itself with a key that is not its own.
    :param load: what it reports, whoever is in.
    :param is_deaf: whether it goes on when it is asked to end.
    :param is_impostor: whether it is somebody else who has taken its place: without its key, and letting in everybody.
    """

    start_delay: float | None = 0.0
    exits: float | None = None
    wrong_key: bool = False
    load: float | None = None
    is_deaf: bool = False
    is_impostor: bool = False


class EchoGame(Game):
    """Sends each frame back, and has the ledger hear of all."""

    def __init__(self, server: str, ledger: Ledger) -> None:
        self._server = server
        self._ledger = ledger

    def joined(self, player: Player) -> None:
        self._ledger.player_joined(self._server, player.session, player.name)

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
    """The program ``echo``: a started game server."""
    run_place(reactor, Place.from_environment(environment), ledger, temper)


def run_place(reactor: SimReactor, place: Place, ledger: Ledger, temper: Temper) -> None:
    """Run a game server in its place.

    :param temper: how this one behaves.
    """
    process = reactor.process
    if temper.wrong_key:
        place = replace(place, key=bytes(len(place.key)))
    if temper.exits is not None:
        reactor.callLater(temper.exits, process.end, 1)
    serve = serve_as_impostor if temper.is_impostor else serve_echo
    if temper.start_delay is not None:
        reactor.callLater(temper.start_delay, serve, reactor, place, ledger, temper)


def serve_echo(reactor: SimReactor, place: Place, ledger: Ledger, temper: Temper) -> GameServer:
    """Run an echoing game server until it ends, and its process with it."""
    process = reactor.process
    process.kernel.write("serves", process.name, place.server, place.capacity)
    # Room for more than the farm may send, so that the ledger sees it when it does.
    place = replace(place, capacity=2 * place.capacity)
    server = serve_game(reactor, place, EchoGame(place.server, ledger), temper.load)
    if temper.is_deaf:
        process.signal_handlers[signal.SIGTERM] = _do_nothing
    return server


def serve_game(
    reactor: SimReactor, place: Place, game: Game, load: float | None = None
) -> GameServer:
    """Run a game server with any game until it ends, and its process with it."""
    process = reactor.process
    loop = TwistedLoop(cast(Reactor, reactor))
    chance = entropy(process.kernel.seed, "game server", process.machine.name, process.pid)
    server = GameServer(game, place, loop, entropy=chance)
    server.load = load
    process.signal_handlers[signal.SIGTERM] = server.drain

    def ended(_: Any) -> None:
        process.end(0)

    loop.txaio.add_callbacks(loop.txaio.as_future(server.serve), ended, partial(_failed, process))
    return server


def _failed(process: Process, failure: Any) -> None:
    """What a program does not know how to go on from."""
    process.kernel.write("failed", process.name, type(failure.value).__name__)
    process.end(1)


def _do_nothing() -> None:
    """For who does not listen."""


def serve_as_impostor(reactor: SimReactor, place: Place, ledger: Ledger, temper: Temper) -> None:
    """Listen in a game server's place, without its key: whoever is sent here must not be let in by the proxy."""
    loop = TwistedLoop(cast(Reactor, reactor))

    async def listen() -> None:
        listener = await loop.listen(
            place.host, place.port, lambda: _Impostor(place.server, ledger)
        )
        assert place.farm is not None
        await FarmRow(place.farm, place.server, loop).announce(place.host, listener.port)

    done = loop.txaio.as_future(listen)
    loop.txaio.add_callbacks(done, None, partial(_failed, reactor.process))


class _Impostor:
    """A connection to an impostor."""

    def __init__(self, server: str, ledger: Ledger) -> None:
        self._server = server
        self._ledger = ledger
        self._framer = Framer(FORMATS["int32"], OWN_FRAME_MAX)
        self._has_answered = False

    def opened(self, stream: Stream) -> None:
        self._stream = stream
        self._send(Challenge(self._server, bytes(NONCE_BYTES).hex()).encode())

    def received(self, data: bytes) -> None:
        self._framer.feed(data)
        for body in self._framer.frames():
            if self._has_answered:
                self._ledger.violated("an impostor was sent a frame of a player's")
                return
            admit = decode_admit(body[1 + MAC_BYTES :])
            json = Admitted(admit.session, admit.proxy_nonce).to_json()
            self._send(bytes([FrameType.ADMITTED]) + bytes(MAC_BYTES) + json)
            self._has_answered = True

    def closed(self) -> None:
        """That is all."""

    def _send(self, body: bytes) -> None:
        self._stream.write(FORMATS["int32"].encode(body))
