"""A client's side of the protocol: one connection, from AUTH to its end (docs/protocol).

It knows no event loop: bytes come as to any :class:`gameproxy.loops.Receiver`, and go to the
:class:`gameproxy.loops.Stream` that it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal, Protocol

from gameproxy.frame_format import FrameError, FrameFormat
from gameproxy.framing import Framer
from gameproxy.loops import Loop, Stream, Timer
from gameproxy.messages import (
    OWN_FRAME_MAX,
    RESERVED_BELOW,
    Auth,
    BadMessage,
    FrameType,
    Notice,
    Status,
    Welcome,
    decode_error,
    decode_notice,
    decode_status,
    decode_welcome,
)
from gameproxy.reasons import CloseReason

LEAVE_TIMEOUT: Final = 5.0
"""Seconds that the proxy may take to close after CLOSE."""

DialectName = Literal["native", "preamble", "plain"]


class End(Enum):
    """What ended a connection."""

    LEFT = auto()
    """The client left."""
    CLOSED = auto()
    """CLOSE came: the game server or the proxy ended the session, and said so."""
    REFUSED = auto()
    """ERROR came: the client was not let in."""
    LOST = auto()
    """The connection broke, or the proxy broke the protocol. In the dialects ``preamble`` and ``plain``, which have no
    CLOSE, whatever the client did not do itself is this."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended.

    :param code: a close reason, or with ``CLOSED`` perhaps a word of the game's own.
    :param message: for people; from outside, as the code may be: both are to be escaped before they are shown.
    :param retry_after: with ``REFUSED``: seconds after which to try again makes sense, or ``None``.
    """

    end: End
    code: str
    message: str
    retry_after: float | None = None

    @property
    def is_orderly(self) -> bool:
        """Whether the game is over because one of those who play wanted it: the client has left, or the game server
        has closed with ``left`` or a word of its own."""
        if self.end is End.CLOSED:
            return self.code == CloseReason.LEFT or self.code not in _CODES
        return self.end is End.LEFT


_CODES: Final = frozenset(CloseReason)
_GONE_AWAY: Final = Ending(End.LEFT, CloseReason.LEFT, "")


class Events(Protocol):
    """Who is told what happens on a connection."""

    def status_came(self, status: Status) -> None:
        """The client waits for a place; said again whenever its position changes."""
        ...

    def let_in(self, welcome: Welcome | None) -> None:
        """The client is in: from now on frames go both ways.

        :param welcome: ``None`` in the dialect ``plain``.
        """
        ...

    def settings_came(self, settings: bytes) -> None:
        """The game server sent its settings."""
        ...

    def frame_came(self, body: bytes) -> None:
        """A frame of the game came.

        :param body: all of it, with the byte of type; may be empty.
        """
        ...

    def taken(self) -> None:
        """What was sent has been taken, after the buffer was full."""
        ...

    def gone(self, ending: Ending) -> None:
        """The connection exists no more. Called once."""
        ...


class Connection:
    """A client's connection to a proxy: a :class:`gameproxy.loops.Receiver`.

    :param auth: who the client is, and the proof; ignored in the dialect ``plain``.
    :param format: the frame format, that of the proxy.
    :param welcome_timeout: seconds that the way in may take.
    :raises ValueError: AUTH is too large.
    :ivar events: who is told; to be set before the connection is opened.
    :ivar ending: how it ended or is about to end; ``None`` before.
    """

    events: Events

    def __init__(
        self,
        loop: Loop,
        auth: Auth,
        format: FrameFormat,
        dialect: DialectName,
        welcome_timeout: float,
    ) -> None:
        self._loop = loop
        self._format = format
        self._own_frame_max = min(OWN_FRAME_MAX, format.largest)
        self._has_close = dialect == "native"
        self._way_in = b"" if dialect == "plain" else self._own_frame(auth.encode())
        self._welcome_timeout = welcome_timeout
        self._framer = Framer(format, self._own_frame_max if self._way_in else None)
        self._take_frame: Callable[[bytes], None] = self._expect_welcome
        self._stream: Stream | None = None
        self._is_in = self._paused = self._gone = False
        self._deadline: Timer | None = None
        self.ending: Ending | None = None

    # To be called

    @property
    def behind(self) -> int:
        """Bytes sent that are not taken, beyond what the buffer holds."""
        return 0 if self._stream is None else self._stream.behind

    def send(self, body: bytes) -> None:
        """Send a frame to the game server.

        :raises ValueError: it cannot be sent: its type is the proxy's, or it is too large.
        """
        if self._has_close and body and body[0] < RESERVED_BELOW:
            raise ValueError(f"a frame's first byte must be {RESERVED_BELOW:#04x} or more")
        assert self._stream is not None
        self._stream.write(self._format.encode(body))

    def leave(self, message: str) -> None:
        """End the session in good order, and hear no more. Doing it twice changes nothing.

        :raises ValueError: the message is too long.
        """
        if self.ending is not None:
            return
        ending = Ending(End.LEFT, CloseReason.LEFT, message)
        if not (self._has_close and self._is_in):
            self._finish(ending)
            return
        assert self._stream is not None
        self._stream.write(
            self._own_frame(Notice(CloseReason.LEFT, message).encode(FrameType.CLOSE))
        )
        self._end_with(ending)
        # It is for the proxy to close: were there unread frames here, our closing would reset the connection, and
        # CLOSE might be lost.
        self._deadline = self._loop.call_later(LEAVE_TIMEOUT, self._not_closed)
        self._paused = False
        self._stream.resume()

    def abort(self, ending: Ending = _GONE_AWAY) -> None:
        """End the connection at once, if it is there; what is not sent yet is lost."""
        self._end_with(ending)
        if self._stream is not None and not self._gone:
            self._stream.abort()

    def pause(self) -> None:
        """Hand on no frames for now, and read no more."""
        if self._stream is not None and self.ending is None:
            self._paused = True
            self._stream.pause()

    def resume(self) -> None:
        """Hand on frames again: first those that have come already."""
        if not self._paused:
            return
        self._paused = False
        self._hand_on()
        if not self._paused and self._stream is not None and not self._gone:
            self._stream.resume()

    # What the stream calls

    def opened(self, stream: Stream) -> None:
        """Send AUTH."""
        self._stream = stream
        stream.reads_on = True
        stream.on_taken = self.events.taken
        if self.ending is not None:
            stream.abort()
        elif self._way_in:
            self._deadline = self._loop.call_later(self._welcome_timeout, self._not_welcomed)
            stream.write(self._way_in)
        else:
            self._enter(None)

    def received(self, data: bytes) -> None:
        """Hand on what has come."""
        self._framer.feed(data)
        self._hand_on()

    def closed(self) -> None:
        """Hand on what had come before, and tell how it ended."""
        self._gone = True
        try:
            self._hand_on()
        finally:
            message = _LOST if self._is_in else _NOT_IN
            self._end_with(Ending(End.LOST, CloseReason.SERVER_LOST, message))
            assert self.ending is not None
            self.events.gone(self.ending)

    def _hand_on(self) -> None:
        if self.ending is not None:
            return
        try:
            for body in self._framer.frames():
                self._take_frame(body)
                if self.ending is not None or (self._paused and not self._gone):
                    return
        except (FrameError, BadMessage) as error:
            message = f"This is not the protocol that is spoken here: {error}."
            self._finish(Ending(End.LOST, CloseReason.PROTOCOL_ERROR, message))

    def _expect_welcome(self, body: bytes) -> None:
        kind = body[0] if body else RESERVED_BELOW
        if kind == FrameType.WELCOME:
            self._enter(decode_welcome(body[1:]))
        elif kind == FrameType.STATUS:
            self.events.status_came(decode_status(body[1:]))
        elif kind == FrameType.ERROR:
            error = decode_error(body[1:])
            self._finish(Ending(End.REFUSED, error.code, error.message, error.retry_after))
        else:
            raise BadMessage("WELCOME was expected")

    def _enter(self, welcome: Welcome | None) -> None:
        self._stop_deadline()
        self._is_in = True
        self._framer.max_body = self._format.max_frame
        self._take_frame = self._play if self._has_close else self.events.frame_came
        self.events.let_in(welcome)

    def _play(self, body: bytes) -> None:
        kind = body[0] if body else RESERVED_BELOW
        if kind >= RESERVED_BELOW:
            self.events.frame_came(body)
        elif kind == FrameType.SETTINGS:
            self.events.settings_came(body[1:])
        elif kind == FrameType.CLOSE:
            notice = decode_notice(body[1:])
            self._finish(Ending(End.CLOSED, notice.code, notice.message))
        else:
            raise BadMessage(f"a frame of type {kind:#04x} while playing")

    # How it ends

    def _not_welcomed(self) -> None:
        self._deadline = None
        message = f"The proxy did not let the client in within {self._welcome_timeout:g} s."
        self._finish(Ending(End.LOST, CloseReason.SERVER_LOST, message))

    def _not_closed(self) -> None:
        self._deadline = None
        self.abort()

    def _finish(self, ending: Ending) -> None:
        """End the connection, if that is not under way, and hear no more."""
        assert self._stream is not None
        self._end_with(ending)
        self._stream.end()

    def _end_with(self, ending: Ending) -> None:
        self._stop_deadline()
        if self.ending is None:
            self.ending = ending

    def _stop_deadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def _own_frame(self, body: bytes) -> bytes:
        if len(body) > self._own_frame_max:
            raise ValueError(
                f"a frame of the proxy's own may have {self._own_frame_max} bytes, not {len(body)}"
            )
        return self._format.encode(body)


_LOST: Final = "The connection to the proxy was lost."
_NOT_IN: Final = (
    "The proxy ended the connection without a word. Is it one, with this dialect and frame format?"
)
