"""For clients written in Python: what a client of the dialect ``native`` has to do, so that the game need not.

A client is a Twisted protocol whose methods say what happens; override those that matter::

    class Greeter(GameClient):
        def welcomed(self, welcome):
            self.send(b"\\x10hello")

        def received(self, body):
            self.leave()

    connectProtocol(endpoint, Greeter(reactor, Auth("guest", name="ana")))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from gameproxy.framing import FORMATS, FrameError, FrameFormat, Framer
from gameproxy.messages import (
    OWN_FRAME_MAX,
    RESERVED_BELOW,
    Auth,
    BadMessage,
    FrameType,
    Notice,
    Status,
    Welcome,
    decode_notice,
    decode_status,
    decode_welcome,
)
from gameproxy.reasons import CloseReason

LEAVE_TIMEOUT: Final = 5.0
"""Seconds that the proxy may take to close after CLOSE."""


class End(Enum):
    """What ended a connection."""

    LEFT = auto()
    """The client left."""
    CLOSED = auto()
    """CLOSE came: the session is over in good order."""
    REFUSED = auto()
    """ERROR came: the client was not let in."""
    LOST = auto()
    """The connection broke, or the proxy broke the protocol."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended.

    :param code: a close reason, or with ``CLOSED`` perhaps a word of the game's own.
    :param message: for people; from outside, so it is to be escaped before it is shown.
    """

    end: End
    code: str
    message: str


class GameClient(Protocol):
    """A client's connection to a proxy, from AUTH to its end.

    :param auth: who the client is, and the proof.
    :param format: the frame format, that of the proxy.
    """

    transport: ITCPTransport

    def __init__(
        self, reactor: IReactorTime, auth: Auth, format: FrameFormat = FORMATS["int32"]
    ) -> None:
        self.reactor = reactor
        self._auth = auth
        self._format = format
        self._framer = Framer(format, OWN_FRAME_MAX)
        self._receive: Callable[[bytes], None] = self._expect_welcome
        self._ending: Ending | None = None
        self._deadline: IDelayedCall | None = None

    # To be overridden

    def waiting(self, status: Status) -> None:
        """The client waits for a place; said again whenever its position changes."""

    def welcomed(self, welcome: Welcome) -> None:
        """The client is in: from now on frames go both ways."""

    def settings(self, settings: bytes) -> None:
        """The game server sent its settings."""

    def received(self, body: bytes) -> None:
        """A frame of the game came.

        :param body: all of it, with the byte of type; may be empty.
        """

    def ended(self, ending: Ending) -> None:
        """The connection exists no more. Called once."""

    # To be called

    def send(self, body: bytes) -> None:
        """Send a frame to the game server; its first byte must be 0x10 or more. After the end it goes nowhere."""
        if self._ending is None:
            self.transport.write(self._format.encode(body))

    def leave(self, message: str = "") -> None:
        """End the session in good order. Doing it twice changes nothing."""
        if self._ending is not None:
            return
        if self._receive == self._expect_welcome:  # CLOSE is for those who are in
            self._finish(Ending(End.LEFT, CloseReason.LEFT, message))
            return
        self.send(Notice(CloseReason.LEFT, message).encode(FrameType.CLOSE))
        # It is for the proxy to close: were there unread frames here, our closing would reset the connection, and
        # CLOSE might be lost.
        self._ending = Ending(End.LEFT, CloseReason.LEFT, message)
        self._receive = _ignore
        self._deadline = self.reactor.callLater(LEAVE_TIMEOUT, self.transport.abortConnection)

    # What the transport calls

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.write(self._format.encode(self._auth.encode()))

    def dataReceived(self, data: bytes) -> None:
        self._framer.feed(data)
        try:
            for body in self._framer.frames():
                self._receive(body)
        except (FrameError, BadMessage) as error:
            message = f"This is not the protocol that is spoken here: {error}."
            self._finish(Ending(End.LOST, CloseReason.PROTOCOL_ERROR, message))

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        if self._ending is None:
            message = "The connection to the proxy was lost."
            self._ending = Ending(End.LOST, CloseReason.SERVER_LOST, message)
        self._receive = _ignore
        self.ended(self._ending)

    def _expect_welcome(self, body: bytes) -> None:
        kind = body[0] if body else RESERVED_BELOW
        if kind == FrameType.WELCOME:
            welcome = decode_welcome(body[1:])
            self._framer.max_body = self._format.max_frame
            self._receive = self._play
            self.welcomed(welcome)
        elif kind == FrameType.STATUS:
            self.waiting(decode_status(body[1:]))
        elif kind == FrameType.ERROR:
            error = decode_notice(body[1:])
            self._finish(Ending(End.REFUSED, error.code, error.message))
        else:
            raise BadMessage("WELCOME was expected")

    def _play(self, body: bytes) -> None:
        kind = body[0] if body else RESERVED_BELOW
        if kind >= RESERVED_BELOW:
            self.received(body)
        elif kind == FrameType.SETTINGS:
            self.settings(body[1:])
        elif kind == FrameType.CLOSE:
            notice = decode_notice(body[1:])
            self._finish(Ending(End.CLOSED, notice.code, notice.message))
        else:
            raise BadMessage(f"a frame of type {kind:#04x} while playing")

    def _finish(self, ending: Ending) -> None:
        """End the connection, if that is not under way, and hear no more."""
        if self._ending is None:
            self._ending = ending
        self._receive = _ignore
        self.transport.unregisterProducer()  # type: ignore[attr-defined]  # an IConsumer too
        self.transport.loseConnection()


def _ignore(body: bytes) -> None:
    """What comes after the end is nobody's."""
