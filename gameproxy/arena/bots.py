"""Players for the echo game: each connects, plays a while, checks what comes back, leaves, and comes again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from gameproxy.gameclient import End, Ending, GameClient
from gameproxy.interfaces import Entropy
from gameproxy.messages import RESERVED_BELOW, Auth, Welcome

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

    :param endpoint: where the proxy listens.
    :param entropy: gives what is random: frames, and how long bots stay and rest.
    :param count: how many bots there are.
    :param on_trouble: called with a text when a bot saw what it should not see. That bot comes no more.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        entropy: Entropy,
        count: int,
        on_trouble: Callable[[str], None],
    ) -> None:
        chance = Chance(entropy)
        self._bots = [
            Bot(reactor, endpoint, chance, f"bot-{number}", on_trouble)
            for number in range(1, count + 1)
        ]

    def start(self) -> None:
        """All bots come."""
        for bot in self._bots:
            bot.come()

    def stop(self) -> Deferred[None]:
        """All bots leave.

        :return: fires when none is connected any more.
        """
        return gatherResults([bot.stop() for bot in self._bots]).addCallback(lambda _: None)


class Bot:
    """One of a crowd."""

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        chance: Chance,
        name: str,
        on_trouble: Callable[[str], None],
    ) -> None:
        self.name = name
        self._reactor = reactor
        self._endpoint = endpoint
        self._chance = chance
        self._on_trouble = on_trouble
        self._stopping = False
        self._connecting: Deferred[None] | None = None
        self._visit: Visit | None = None
        self._resting: IDelayedCall | None = None
        self._gone: Deferred[None] = Deferred()

    def come(self) -> None:
        """Connect, and play."""
        self._resting = None
        visit = Visit(self._reactor, self._chance, self.name, self._visit_over)
        connecting = connectProtocol(self._endpoint, visit)
        self._connecting = connecting.addCallbacks(self._connected, self._not_connected)

    def stop(self) -> Deferred[None]:
        """Leave, and come no more.

        :return: fires when there is no connection.
        """
        self._stopping = True
        if self._resting is not None:
            self._resting.cancel()
        elif self._visit is not None:
            self._visit.leave()
            return self._gone
        elif self._connecting is not None:
            self._connecting.cancel()
        return succeed(None)

    def _connected(self, visit: Visit) -> None:
        self._visit = visit

    def _not_connected(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._on_trouble(f"{self.name} could not connect: {failure.getErrorMessage()}")

    def _visit_over(self, trouble: str | None) -> None:
        self._visit = self._connecting = None
        if trouble is not None:
            self._on_trouble(f"{self.name} {trouble}")
        elif not self._stopping:
            self._resting = self._reactor.callLater(self._chance.between(REST), self.come)
        if self._stopping:
            self._gone.callback(None)


class Visit(GameClient):
    """A bot's connection: sends frames, and compares what comes back.

    :param on_over: called when it has ended, with what went wrong, or ``None``.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        chance: Chance,
        name: str,
        on_over: Callable[[str | None], None],
    ) -> None:
        super().__init__(reactor, Auth("guest", name=name))
        self._chance = chance
        self._on_over = on_over
        self._interval = chance.between(FRAME_INTERVAL)
        self._frames_left = int(chance.between(STAY) / self._interval)
        self._under_way: deque[bytes] = deque()
        self._silence = 0.0
        self._trouble: str | None = None
        self._playing = LoopingCall(self._play_on)
        self._playing.clock = reactor

    def welcomed(self, welcome: Welcome) -> None:
        self._playing.start(self._interval)

    def received(self, body: bytes) -> None:
        self._silence = 0.0
        if not self._under_way or self._under_way.popleft() != body:
            self._give_up("got another frame than it had sent")

    def ended(self, ending: Ending) -> None:
        if self._playing.running:
            self._playing.stop()
        if ending.end is not End.LEFT:
            self._trouble = f"was cut off: {ending.code}: {ending.message}"
        self._on_over(self._trouble)

    def _play_on(self) -> None:
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
            self.send(body)
        elif not self._under_way:
            self._playing.stop()
            self.leave()

    def _give_up(self, trouble: str) -> None:
        self._trouble = trouble
        self._playing.stop()
        self.leave()
