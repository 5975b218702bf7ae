"""For game servers written in Python: what a game server behind the proxy has to do, so that the game need not.

A game is an object with three methods::

    class Echo(Game):
        def received(self, player, body):
            player.send(body)

    run(Echo())

``run`` takes its place in the farm from the environment that the proxy gives it (docs/protocol, "What a started game
server gets"), listens, announces itself, and lets in whom the proxy admits.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, ITCPTransport
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from gameproxy.framing import FORMATS, FrameError, FrameFormat, Framer
from gameproxy.handshake import ADMIT_TIMEOUT, NONCE_BYTES, GameServerHandshake, HandshakeError
from gameproxy.interfaces import Entropy, Reactor
from gameproxy.keys import read_key_file
from gameproxy.messages import (
    OWN_FRAME_MAX,
    Admit,
    FrameType,
    Kick,
    Notice,
    decode_object,
    encode_settings,
)
from gameproxy.reasons import ADVICE, CloseReason

HEARTBEAT_INTERVAL: Final = 5.0
"""Seconds between two signs of life."""
FAREWELL_TIME: Final = 2.0
"""Seconds in which players are told that this game server ends; the proxy takes one to close its side."""
BUSY_TIMEOUT: Final = 10.0
"""Seconds to wait while another program writes to the farm's database."""


class Game:
    """A game: override what it needs."""

    def joined(self, player: Player) -> None:
        """A player has come in."""

    def received(self, player: Player, body: bytes) -> None:
        """A frame came from a player.

        :param body: all of it, with the byte of type (0x10 or more in the dialect ``native``); may be empty.
        """

    def left(self, player: Player) -> None:
        """A player has gone. Called once for each that had joined."""


class Player:
    """A player in a game.

    :ivar session: the id of the session.
    :ivar name: the player's name; of guests it begins with ``guest:``.
    :ivar address: the IP that the client comes from.
    :ivar properties: what the client sent for the game.
    """

    def __init__(self, admit: Admit, connection: _Connection) -> None:
        self.session = admit.session
        self.name = admit.player
        self.address = admit.address
        self.properties = decode_object(admit.properties.encode("utf-8"))
        self._connection = connection

    def send(self, body: bytes) -> None:
        """Send a frame. Its first byte must be 0x10 or more in the dialect ``native``."""
        self._connection.send(body)

    def send_settings(self, settings: bytes) -> None:
        """Send the settings of the game: any bytes, which the client gets as SETTINGS."""
        self._connection.send_own(encode_settings(settings))

    def close(self, message: str, code: str = CloseReason.LEFT) -> None:
        """End the session in good order."""
        self._connection.send_own(Notice(code, message).encode(FrameType.CLOSE))
        self._connection.finish()

    def kick(self, message: str, ban_for: float | None = None) -> None:
        """Have the proxy end the session, and ban the player for so many seconds."""
        self._connection.send_own(Kick(CloseReason.KICKED, message, ban_for).encode())


@dataclass(frozen=True, slots=True)
class Place:
    """A game server's place in a farm.

    :param farm: the database's file, or ``None`` for a game server that the proxy does not start.
    :param key: the game server's 32-byte key.
    :param port: where to listen; 0: any free one.
    """

    server: str
    key: bytes = field(repr=False)
    host: str
    port: int
    capacity: int
    farm: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Place:
        """What the proxy that started this process has given it.

        :raises KeyError: a variable is missing.
        :raises ~gameproxy.keys.KeyFileError: the key cannot be read.
        """
        return cls(
            server=environment["GAMEPROXY_SERVER_ID"],
            key=read_key_file(Path(environment["GAMEPROXY_SECRET_FILE"])),
            host=environment["GAMEPROXY_HOST"],
            port=int(environment["GAMEPROXY_PORT"]),
            capacity=int(environment["GAMEPROXY_CAPACITY"]),
            farm=environment["GAMEPROXY_FARM"].removeprefix("sqlite:///"),
        )


class GameServer(Service):
    """Lets players in whom a proxy admits, and tells the farm that this game server is there.

    :param format: the frame format, that of the proxy.
    :param own_frames: whether the proxy's frames stand among the game's, as in the dialect ``native``. In the others
        all frames are the game's, there are no settings and no kicks, and a session ends with its connection.
    :ivar players: who is in, by session.
    """

    log = Logger()

    def __init__(
        self,
        game: Game,
        place: Place,
        reactor: Reactor,
        *,
        format: FrameFormat = FORMATS["int32"],
        own_frames: bool = True,
        entropy: Entropy = os.urandom,
    ) -> None:
        self.game = game
        self.place = place
        self.reactor = reactor
        self.format = format
        self.own_frames = own_frames
        self.entropy = entropy
        self.players: dict[str, Player] = {}
        self.is_draining = False
        self._port: IListeningPort | None = None
        self._announced = False
        self._emptied: Deferred[None] | None = None
        self._heartbeat = LoopingCall(self._beat)
        self._heartbeat.clock = reactor

    def startService(self) -> None:
        """Listen, then say so.

        :raises CannotListenError: the address cannot be listened at.
        """
        super().startService()
        factory = _Factory(self)
        self._port = self.reactor.listenTCP(
            self.place.port, factory, backlog=1024, interface=self.place.host
        )
        if self.place.farm is not None:
            self._heartbeat.start(HEARTBEAT_INTERVAL)

    def stopService(self) -> Deferred[None]:
        """Let nobody in any more, tell the players, and take leave of the farm."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    @property
    def port(self) -> int:
        """Where it listens."""
        return cast(IPv4Address, self._port.getHost()).port if self._port else 0

    def left(self, player: Player) -> None:
        """A player's connection is gone."""
        del self.players[player.session]
        if self._emptied is not None and not self._emptied.called and not self.players:
            self._emptied.callback(None)
        self.game.left(player)

    async def _stop(self) -> None:
        self.is_draining = True
        if self._heartbeat.running:
            self._heartbeat.stop()
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        for player in list(self.players.values()):
            player.close(ADVICE[CloseReason.DRAINING], CloseReason.DRAINING)
        if self.players:
            self._emptied = Deferred()
            self._emptied.addTimeout(FAREWELL_TIME, self.reactor, lambda _, timeout: None)
            await self._emptied
        if self.place.farm is not None:
            await self._write(_TAKE_LEAVE).addErrback(self._not_written)

    def _beat(self) -> Deferred[None]:
        if self._announced:
            written = self._write(_BEAT).addCallback(lambda _: None)
        else:
            written = self._write(_ANNOUNCE, self.place.host, self.port).addCallback(self._is_known)
        return written.addErrback(self._not_written)

    def _is_known(self, rows: int) -> None:
        self._announced = rows == 1
        if not self._announced:
            self.log.error(
                "The farm does not wait for game server {server}: it ends.",
                server=self.place.server,
            )
            self.reactor.stop()  # type: ignore[attr-defined]  # of a program's own reactor

    def _not_written(self, failure: Failure) -> None:
        # Not the end: the players play on, and the next heartbeat may get through.
        self.log.failure("The farm could not be told.", failure)

    def _write(self, statement: str, *values: object) -> Deferred[int]:
        """Change this game server's row, in a thread.

        :return: how many rows were changed.
        """
        # Never made here: a database that is missing is the proxy's to make again.
        file = Path(self.place.farm or "").absolute().as_uri() + "?mode=rw"
        server, now = self.place.server, self.reactor.seconds()

        def write() -> int:
            database = sqlite3.connect(file, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
            try:
                return database.execute(statement, (*values, now, server)).rowcount
            finally:
                database.close()

        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), write)


_ANNOUNCE: Final = """
    UPDATE game_servers SET state = 'ready', host = ?, port = ?, heartbeat_at = ?
    WHERE id = ? AND state = 'starting'"""
_BEAT: Final = "UPDATE game_servers SET heartbeat_at = ? WHERE id = ?"
_TAKE_LEAVE: Final = """
    UPDATE game_servers SET state = 'draining', heartbeat_at = ? WHERE id = ? AND state = 'ready'"""


class _Factory(ServerFactory):
    noisy = False

    def __init__(self, server: GameServer) -> None:
        self._server = server

    def buildProtocol(self, addr: IAddress | None) -> _Connection:
        return _Connection(self._server)


class _Connection(Protocol):
    """A connection from a proxy: one session."""

    transport: ITCPTransport

    def __init__(self, server: GameServer) -> None:
        self._server = server
        self._framer = Framer(server.format, OWN_FRAME_MAX)
        self._handshake = GameServerHandshake(
            server=server.place.server, key=server.place.key, nonce=server.entropy(NONCE_BYTES)
        )
        self._receive: Callable[[bytes], None] = self._expect_admit
        self._deadline: IDelayedCall | None = None
        self._player: Player | None = None
        self._finished = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        # Whoever does not take what is sent is not read from either: nothing piles up.
        self.transport.registerProducer(self.transport, True)  # type: ignore[attr-defined]  # an IConsumer too
        self._deadline = self._server.reactor.callLater(ADMIT_TIMEOUT, self.finish)
        self.send(self._handshake.challenge())

    def dataReceived(self, data: bytes) -> None:
        if self._finished:
            return
        self._framer.feed(data)
        try:
            while not self._finished and (body := next(self._framer.frames(), None)) is not None:
                self._receive(body)
        except (FrameError, HandshakeError) as error:
            self._server.log.warn("A proxy's connection is closed: {error}", error=error)
            self.finish()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._stop_deadline()
        if self._player is not None:
            self._server.left(self._player)

    def send(self, body: bytes) -> None:
        if not self._finished:
            self.transport.write(self._server.format.encode(body))

    def send_own(self, body: bytes) -> None:
        """Send a frame of the proxy's, where there are such."""
        if self._server.own_frames:
            self.send(body)

    def finish(self) -> None:
        """End the connection when all is sent; send and hear no more."""
        if self._finished:
            return
        self._finished = True
        self.transport.unregisterProducer()  # type: ignore[attr-defined]  # an IConsumer too
        self.transport.loseConnection()

    def _expect_admit(self, body: bytes) -> None:
        admit = self._handshake.receive(body)
        self._stop_deadline()
        server = self._server
        if admit.session in server.players:
            raise HandshakeError("the session is in already")
        if server.is_draining or len(server.players) >= server.place.capacity:
            code = "draining" if server.is_draining else "full"
            self.send(Notice(code, "There is no room.").encode(FrameType.REFUSED))
            self.finish()
            return
        self.send(self._handshake.accept(admit))
        self._framer.max_body = server.format.max_frame
        self._receive = self._play
        self._player = server.players[admit.session] = Player(admit, self)
        server.game.joined(self._player)

    def _play(self, body: bytes) -> None:
        if self._server.own_frames and body[:1] == bytes([FrameType.CLOSE]):
            self.finish()
        else:
            assert self._player is not None
            self._server.game.received(self._player, body)

    def _stop_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()


def run(game: Game) -> None:
    """Run a game server that a proxy has started, until it is asked to stop (SIGTERM)."""
    from twisted.internet import reactor  # the program's own: this function is its entry point

    server = GameServer(game, Place.from_environment(os.environ), cast(Reactor, reactor))
    server.startService()
    reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
    reactor.run()
