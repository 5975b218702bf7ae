"""Players for the echo game: each connects, plays a while, checks what comes back, leaves, and comes again."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from gameproxy.client import Client, End, Guest, ProtocolError, Refused, Session
from gameproxy.client.reconnecting import sleep
from gameproxy.interfaces import Entropy
from gameproxy.loops import Loop, Timer
from gameproxy.messages import RESERVED_BELOW

FRAME_INTERVAL: Final = (0.15, 0.4)
"""Least and most seconds between two frames of a bot; each visit has one interval."""
FRAME_SIZE: Final = (8, 200)
"""Least and most bytes of a frame."""
STAY: Final = (3.0, 15.0)
"""Least and most seconds of playing until a bot leaves."""
REST: Final = (0.3, 1.5)
"""Least and most seconds until a bot that has left comes again."""
ECHO_TIMEOUT: Final = 5.0
"""Seconds in which something must come back while frames are on their way."""


class Chance:
    """Numbers from random bytes."""

    def __init__(self, entropy: Entropy) -> None:
        self.bytes = entropy

    def between(self, bounds: tuple[float, float]) -> float:
        """A number between two others."""
        low, high = bounds
        return low + (high - low) * int.from_bytes(self.bytes(4), "big") / 2**32


class Crowd:
    """Bots that come and go until they are stopped.

    :param host: where the proxy listens, at ``port``.
    :param entropy: gives what is random: frames, and how long bots stay and rest.
    :param count: how many bots there are.
    :param on_trouble: called with a text when a bot saw what it should not see. That bot comes no more.
    """

    def __init__(
        self,
        loop: Loop,
        host: str,
        port: int,
        entropy: Entropy,
        count: int,
        on_trouble: Callable[[str], None],
    ) -> None:
        chance = Chance(entropy)
        self._txaio = loop.txaio
        self._bots = [
            Bot(loop, Client(loop, host, port, Guest(name)), chance, name, on_trouble)
            for name in (f"bot-{number}" for number in range(1, count + 1))
        ]

    def start(self) -> None:
        """All bots come."""
        for bot in self._bots:
            bot.come()

    def stop(self) -> Awaitable[object]:
        """All bots leave.

        :return: a future: when none is connected any more.
        """
        gone = [bot.stop() for bot in self._bots]
        return cast(Awaitable[object], self._txaio.gather(gone, consume_exceptions=False))


class Bot:
    """One of a crowd. It comes once, and again after each rest, until it is stopped or sees trouble."""

    def __init__(
        self,
        loop: Loop,
        client: Client,
        chance: Chance,
        name: str,
        on_trouble: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._client = client
        self._chance = chance
        self._name = name
        self._on_trouble = on_trouble
        self._life: Any = None  # the future of _live
        self._gone = loop.txaio.create_future()
        self._session: Session | None = None
        self._stopping = False

    def come(self) -> None:
        """Connect, and play."""
        self._life = self._loop.txaio.as_future(self._live)

    def stop(self) -> Awaitable[None]:
        """Leave, and come no more.

        :return: a future: when there is no connection.
        """
        self._stopping = True
        if self._session is not None:
            self._session.leave()
        elif not self._loop.txaio.is_called(self._gone):
            self._loop.txaio.cancel(self._life)
        return cast(Awaitable[None], self._gone)

    async def _live(self) -> None:
        trouble = None
        try:
            while trouble is None and not self._stopping:
                trouble = await self._visit()
                if trouble is None and not self._stopping:
                    await sleep(self._loop, self._chance.between(REST))
        except BaseException:  # cancelled, by stop
            if not self._stopping:
                raise
        finally:
            self._loop.txaio.resolve(self._gone, None)
        if trouble is not None:
            self._on_trouble(f"{self._name} {trouble}")

    async def _visit(self) -> str | None:
        """Play once.

        :return: what went wrong, or ``None``.
        """
        try:
            session = self._session = await self._client.connect()
        except Refused as refusal:
            return f"was cut off: {refusal}"
        except (OSError, ProtocolError) as error:
            return f"could not connect: {error}"
        visit = Visit(self._loop, self._chance, session)
        ending = await session.ended
        visit.over()
        self._session = None
        if ending.end is not End.LEFT:
            return f"was cut off: {ending.code}: {ending.message}"
        return visit.trouble


class Visit:
    """A bot's session: sends frames, and compares what comes back.

    :ivar trouble: what went wrong, or ``None``.
    """

    def __init__(self, loop: Loop, chance: Chance, session: Session) -> None:
        self.trouble: str | None = None
        self._loop = loop
        self._chance = chance
        self._session = session
        self._interval = chance.between(FRAME_INTERVAL)
        self._frames_left = int(chance.between(STAY) / self._interval)
        self._under_way: deque[bytes] = deque()
        self._silence = 0.0
        self._next: Timer | None = None
        session.on_frame = self._received
        self._play_on()

    def over(self) -> None:
        """The session has ended."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _received(self, body: bytes) -> None:
        self._silence = 0.0
        if not self._under_way or self._under_way.popleft() != body:
            self._give_up("got another frame than it had sent")

    def _play_on(self) -> None:
        self._next = None
        if self._session.ending is not None:
            return
        if self._under_way:
            self._silence += self._interval
            if self._silence > ECHO_TIMEOUT:
                self._give_up(f"got nothing back for {ECHO_TIMEOUT:g} s")
                return
        if self._frames_left:
            self._frames_left -= 1
            size = int(self._chance.between(FRAME_SIZE))
            body = bytes([RESERVED_BELOW]) + self._chance.bytes(size - 1)
            self._under_way.append(body)
            self._session.send(body)
        elif not self._under_way:
            self._session.leave()
            return
        self._next = self._loop.call_later(self._interval, self._play_on)

    def _give_up(self, trouble: str) -> None:
        self.trouble = trouble
        self._session.leave()
