"""A client's session, from WELCOME to its end, as a program uses it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self, TypeVar, cast

from gameproxy.client.connection import Connection, End, Ending
from gameproxy.escaping import printable
from gameproxy.loops import Loop
from gameproxy.messages import Status, Welcome
from gameproxy.reasons import CloseReason

T = TypeVar("T")

UNREAD_MAX: Final = 262_144
"""Bytes of frames that nobody has received yet above which no more are read; each counts :data:`FRAME_COST` more."""
FRAME_COST: Final = 64
SEND_BUFFER_MAX: Final = 1_048_576
"""Bytes that may wait because the proxy does not take them."""
_FAILED: Final = Ending(End.LOST, CloseReason.INTERNAL, "A function of this program failed.")


class SessionEnded(Exception):
    """The session is over.

    :ivar ending: how it ended.
    """

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending

    def __str__(self) -> str:
        return printable(f"{self.ending.code}: {self.ending.message}")


class SendBufferFull(Exception):
    """A frame was not sent: the proxy does not take what was sent before. Await :meth:`Session.drained`."""


class Session:
    """A client that is in. Made by :meth:`gameproxy.client.Client.connect`.

    Frames are received one by one (:meth:`receive`, or ``async for body in session``), or given to a function
    (:attr:`on_frame`). Those that nobody receives are kept, up to a bound, and then no more are read.

    As a context manager it leaves at the end; after an error, without waiting.

    :ivar welcome: the names of session, player, game server and game; ``None`` in the dialect ``plain``.
    :ivar settings: what the game server has sent as settings, most recently; ``None``: nothing.
    :ivar way_in: a future for the one who makes it: ``None`` when the client is in, or how it ended before that.
    """

    def __init__(
        self, loop: Loop, connection: Connection, on_status: Callable[[Status], object] | None
    ) -> None:
        self.welcome: Welcome | None = None
        self.settings: bytes | None = None
        self._txaio = loop.txaio
        self._connection = connection
        self._is_gone = False
        self._on_status = on_status
        self._on_frame: Callable[[bytes], object] | None = None
        self._on_settings: Callable[[bytes], object] | None = None
        self._unread: deque[bytes] = deque()
        self._unread_size = 0
        self._arrivals, self._drains = _Waiters(loop), _Waiters(loop)
        self._way_in, self._ends = _Waiters(loop), _Waiters(loop)
        self.way_in: Awaitable[Ending | None] = self._way_in.wait()
        connection.events = self

    # To be called

    @property
    def ending(self) -> Ending | None:
        """How the session has ended, or is about to end; ``None`` while it goes on."""
        return self._connection.ending

    @property
    def ended(self) -> Awaitable[Ending]:
        """A future of the ending: when the connection exists no more. Each is a new one, which may be cancelled."""
        return self._now(self.ending) if self._is_gone else self._ends.wait()

    @property
    def behind(self) -> int:
        """Bytes sent that wait because the proxy does not take them, beyond what the buffer holds."""
        return self._connection.behind

    def send(self, body: bytes) -> None:
        """Send a frame to the game server.

        :param body: all of it, with the byte of type; in the dialect ``native`` that is 0x10 or more.
        :raises SessionEnded: the session is over.
        :raises SendBufferFull: the proxy does not take what was sent before. The session goes on without this frame.
        :raises ValueError: it has a type of the proxy's own, or a size that the frame format cannot express.
        """
        if self.ending is not None:
            raise SessionEnded(self.ending)
        if self.behind > SEND_BUFFER_MAX:
            raise SendBufferFull(f"{self.behind} bytes wait, which the proxy does not take")
        self._connection.send(body)

    def drained(self) -> Awaitable[None]:
        """A future: when nothing waits any more because the proxy does not take it, or the session is over.

        Who sends much awaits it now and then.
        """
        return self._now(None) if self._is_gone or not self.behind else self._drains.wait()

    async def receive(self) -> bytes:
        """The next frame, whole. May be cancelled, and loses nothing then.

        :raises SessionEnded: the session is over, and all frames that had come before are received.
        """
        while not self._unread:
            if self._is_gone:
                assert self.ending is not None
                raise SessionEnded(self.ending)
            await self._arrivals.wait()
        body = self._pop_unread()
        if not self._unread:
            self._connection.resume()
        return body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next frame. Ends when the session has ended because one of those who play wanted it
        (:attr:`gameproxy.client.Ending.is_orderly`).

        :raises SessionEnded: it has ended otherwise.
        """
        try:
            return await self.receive()
        except SessionEnded as end:
            if end.ending.is_orderly:
                raise StopAsyncIteration from None
            raise

    @property
    def on_frame(self) -> Callable[[bytes], object] | None:
        """Called with each frame, if set, in place of :meth:`receive`; first with those that have come already.

        When it raises, the connection is ended.
        """
        return self._on_frame

    @on_frame.setter
    def on_frame(self, call: Callable[[bytes], object] | None) -> None:
        self._on_frame = call
        while self._unread and self._on_frame is not None:
            self._tell(self._on_frame, self._pop_unread())
        if not self._unread:
            self._connection.resume()

    @property
    def on_settings(self) -> Callable[[bytes], object] | None:
        """Called with the settings, if set, whenever the game server sends some; first with those that it has sent.

        When it raises, the connection is ended.
        """
        return self._on_settings

    @on_settings.setter
    def on_settings(self, call: Callable[[bytes], object] | None) -> None:
        self._on_settings = call
        if call is not None and self.settings is not None:
            self._tell(call, self.settings)

    def leave(self, message: str = "") -> Awaitable[Ending]:
        """End the session in good order; frames that nobody has received yet are dropped. Doing it twice changes
        nothing.

        :param message: for the game server and its people, some hundred characters at most.
        :return: as :attr:`ended`, in 5 s at most.
        :raises ValueError: the message is too long.
        """
        self._connection.leave(message)
        self._drop_unread()
        return self.ended

    def abort(self) -> None:
        """End the connection at once. The game server hears that the client was lost."""
        self._connection.abort()
        self._drop_unread()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            await self.leave()
        else:
            self.abort()

    # What the connection tells

    def status_came(self, status: Status) -> None:
        """Tell whoever wants to know."""
        if self._on_status is not None:
            self._tell(self._on_status, status)

    def let_in(self, welcome: Welcome | None) -> None:
        """The client is in."""
        self.welcome = welcome
        self._way_in.wake(None)

    def settings_came(self, settings: bytes) -> None:
        """Keep them, and tell."""
        self.settings = settings
        if self._on_settings is not None:
            self._tell(self._on_settings, settings)

    def frame_came(self, body: bytes) -> None:
        """Hand it on, or keep it until somebody receives it."""
        if self._on_frame is not None:
            self._tell(self._on_frame, body)
            return
        self._unread.append(body)
        self._unread_size += len(body) + FRAME_COST
        if self._unread_size >= UNREAD_MAX:
            self._connection.pause()
        self._arrivals.wake(None)

    def taken(self) -> None:
        """Who waited for that may send on."""
        self._drains.wake(None)

    def gone(self, ending: Ending) -> None:
        """Nobody need wait for anything any more."""
        self._is_gone = True
        self._way_in.wake(ending)
        self._drains.wake(None)
        self._arrivals.wake(None)
        self._ends.wake(ending)

    def _tell(self, call: Callable[[T], object], what: T) -> None:
        try:
            call(what)
        except BaseException:
            self._connection.abort(_FAILED)
            raise

    def _now(self, value: object) -> Awaitable[Any]:
        return cast(Awaitable[Any], self._txaio.create_future(value))

    def _pop_unread(self) -> bytes:
        body = self._unread.popleft()
        self._unread_size -= len(body) + FRAME_COST
        return body

    def _drop_unread(self) -> None:
        self._unread.clear()
        self._unread_size = 0


class _Waiters:
    """Futures of one event, one for each who waits: it may be cancelled, and takes nothing from the others."""

    def __init__(self, loop: Loop) -> None:
        self._txaio = loop.txaio
        self._waiting: list[Any] = []

    def wait(self) -> Awaitable[Any]:
        """A future of the next time."""
        self._waiting = [one for one in self._waiting if not self._txaio.is_called(one)]
        future = self._txaio.create_future()
        self._waiting.append(future)
        return cast(Awaitable[Any], future)

    def wake(self, value: object) -> None:
        """It happens: this is what those who wait get."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not self._txaio.is_called(future):  # it was not cancelled
                self._txaio.resolve(future, value)
