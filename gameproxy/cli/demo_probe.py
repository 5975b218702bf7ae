"""How long a frame takes to come back, through the proxy and without it: what the proxy adds is the difference.

One echo game server is asked in both ways, in turn, by the same program, over connections of the same kind. For the way
without the proxy the handshake that lets a session in is done here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final

from twisted.internet.defer import CancelledError, Deferred

from gameproxy.cli.demo_facts import RoundTrip
from gameproxy.client import Client, Guest, ProtocolError, Refused, Session, SessionEnded
from gameproxy.client.reconnecting import sleep
from gameproxy.framing import FORMATS, FrameError, Framer
from gameproxy.handshake import NONCE_BYTES, HandshakeError, ProxyHandshake
from gameproxy.interfaces import Entropy
from gameproxy.loops import Stream
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.messages import OWN_FRAME_MAX, Admit, Notice

QUESTION: Final = b"\x10" + bytes(range(63))
"""The frame that is to come back: 64 bytes, about what players of the arena get."""
PAIRS_KEPT: Final = 600
PAUSE: Final = 0.1
"""Seconds from one pair of questions to the next."""
PATIENCE: Final = 5.0
"""Seconds in which an echo must come."""
RETRY_AFTER: Final = 1.0
"""Seconds until a probe that has lost its game server looks for one again."""
Ask = Callable[[bytes], Awaitable[bytes]]
"""Sends a frame, and gives the next that comes."""
_FORMAT: Final = FORMATS["int32"]


@dataclass(frozen=True, slots=True)
class Target:
    """A game server, as one needs to know it to be let in.

    :param key: its 32-byte key.
    """

    host: str
    port: int
    key: bytes


class Lost(Exception):
    """The direct connection is no more."""


class DirectLine:
    """A connection to a game server with no proxy between: a :class:`gameproxy.loops.Receiver`.

    :ivar admitted: fires when the game server has let it in; fails with :class:`Lost`.
    """

    def __init__(self, admit: Admit, key: bytes) -> None:
        self.admitted: Deferred[None] = Deferred()
        self._handshake = ProxyHandshake(admit, key)
        self._framer = Framer(_FORMAT, OWN_FRAME_MAX)
        self._stream: Stream | None = None
        self._awaited: Deferred[bytes] | None = None

    def ask(self, body: bytes) -> Deferred[bytes]:
        """Send a frame. One at a time.

        :return: fires with the next that comes; fails with :class:`Lost`.
        """
        awaited: Deferred[bytes] = Deferred()
        if self._stream is None:
            awaited.errback(Lost())
        else:
            self._awaited = awaited
            self._stream.write(_FORMAT.encode(body))
        return awaited

    def abort(self) -> None:
        """End the connection, if it is there."""
        if self._stream is not None:
            self._stream.abort()

    # What the stream tells

    def opened(self, stream: Stream) -> None:
        self._stream = stream

    def received(self, data: bytes) -> None:
        self._framer.feed(data)
        try:
            for body in self._framer.frames():
                self._receive(body)
        except (FrameError, HandshakeError):
            self.abort()

    def closed(self) -> None:
        self._stream = None
        for awaited in (self.admitted, self._awaited):
            if awaited is not None and not awaited.called:
                awaited.errback(Lost())

    def _receive(self, body: bytes) -> None:
        if self.admitted.called:
            if self._awaited is not None and not self._awaited.called:
                self._awaited.callback(body)
            return
        answer = self._handshake.receive(body)
        if answer is None:
            self.admitted.callback(None)
        elif isinstance(answer, Notice):
            self.abort()
        else:
            assert self._stream is not None
            self._stream.write(_FORMAT.encode(answer))


class Probe:
    """Measures on and on, from :meth:`start` to :meth:`stop`.

    :param host: where the proxy listens, at ``port``.
    :param game: the name of an echo game.
    :param find: gives the game server with an id, or ``None``.
    """

    def __init__(
        self,
        loop: TwistedLoop,
        host: str,
        port: int,
        game: str,
        find: Callable[[str], Awaitable[Target | None]],
        entropy: Entropy,
    ) -> None:
        self._loop = loop
        self._game = game
        self._find = find
        self._entropy = entropy
        self._client = Client(loop, host, port, Guest("probe", game=game))
        self._proxied: deque[float] = deque(maxlen=PAIRS_KEPT)
        self._direct: deque[float] = deque(maxlen=PAIRS_KEPT)
        self._life: Deferred[None] | None = None

    @property
    def round_trip(self) -> RoundTrip | None:
        """What was measured last; ``None`` before anything was."""
        count = min(len(self._proxied), len(self._direct))
        if not count:
            return None
        return RoundTrip(median(self._direct), median(self._proxied), count)

    def start(self) -> None:
        """Begin."""
        self._life = Deferred.fromCoroutine(self._live())

    def stop(self) -> Deferred[None]:
        """Leave.

        :return: fires when no connection is left; fails with what went wrong that cannot.
        """
        assert self._life is not None
        self._life.cancel()
        return self._life

    async def _live(self) -> None:
        try:
            while True:
                # Its game server may be gone, or not there yet.
                with suppress(Refused, ProtocolError, SessionEnded, Lost, OSError):
                    await self._measure()
                await sleep(self._loop, RETRY_AFTER)
        except CancelledError:
            pass

    async def _measure(self) -> None:
        session = await self._client.connect()
        line: DirectLine | None = None
        try:
            line = await self._connect_directly(session)
            ways: list[tuple[Ask, Callable[[], None], deque[float]]] = [
                (partial(_ask, session), session.abort, self._proxied),
                (line.ask, line.abort, self._direct),
            ]
            while True:
                for ask, give_up, samples in ways:
                    samples.append(await self._time(ask, give_up))
                ways.reverse()  # neither is always the first
                await sleep(self._loop, PAUSE)
        finally:
            if line is not None:
                line.abort()
            await session.leave()

    async def _connect_directly(self, session: Session) -> DirectLine:
        assert session.welcome is not None
        target = await self._find(session.welcome.server)
        if target is None:
            raise Lost
        admit = Admit(
            session=self._entropy(NONCE_BYTES).hex(),
            player="guest:probe",
            address="127.0.0.1",
            game=self._game,
            server=session.welcome.server,
            nonce="",
            proxy_nonce=self._entropy(NONCE_BYTES).hex(),
            properties="{}",
        )
        line = DirectLine(admit, target.key)
        try:
            await self._loop.connect(target.host, target.port, PATIENCE, lambda: line)
            await self._in_time(line.admitted, line.abort)
        except BaseException:  # it is cancelled, too
            line.abort()
            raise
        return line

    async def _time(self, ask: Ask, give_up: Callable[[], None]) -> float:
        """Seconds from a question to the echo."""
        asked_at = self._loop.seconds()
        await self._in_time(ask(QUESTION), give_up)
        return self._loop.seconds() - asked_at

    async def _in_time(self, answer: Awaitable[object], give_up: Callable[[], None]) -> None:
        deadline = self._loop.reactor.callLater(PATIENCE, give_up)
        try:
            await answer
        finally:
            if deadline.active():
                deadline.cancel()


async def _ask(session: Session, body: bytes) -> bytes:
    """Send a frame over a session; the next that comes."""
    session.send(body)
    return await session.receive()
