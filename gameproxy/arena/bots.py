"""Bots for the arena: each comes, plays with some sense, checks what it sees, leaves, and comes again."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, cast

from gameproxy.arena.frames import ArenaFrame, BadFrame
from gameproxy.arena.sense import choose
from gameproxy.arena.sight import Sight
from gameproxy.client import (
    Backoff,
    Client,
    End,
    Guest,
    ProtocolError,
    Refused,
    SendBufferFull,
    Session,
    SessionEnded,
    keep_playing,
)
from gameproxy.client.reconnecting import sleep
from gameproxy.interfaces import Entropy
from gameproxy.loops import Loop, Timer
from gameproxy.reasons import CloseReason

REACTION: Final = (0.15, 0.4)
"""Least and most seconds from one decision of a bot to the next; each visit has one such time."""
STAY: Final = (5.0, 25.0)
"""Least and most seconds of playing until a bot leaves."""
REST: Final = (0.3, 1.5)
"""Least and most seconds until a bot that has left comes again."""
SILENCE_MAX: Final = 5.0
"""Seconds in which a snapshot must come."""
LOOK_INTERVAL: Final = 0.5
"""Seconds from one look at the clock to the next."""
SAMPLES_MAX: Final = 10_000
"""Times of each kind that are kept: the latest."""
BACKOFF: Final = Backoff(first=0.5, longest=5.0)


class Chance:
    """Numbers from random bytes."""

    def __init__(self, entropy: Entropy) -> None:
        self.bytes = entropy

    def between(self, bounds: tuple[float, float]) -> float:
        """A number between two others."""
        low, high = bounds
        return low + (high - low) * int.from_bytes(self.bytes(4), "big") / 2**32


class Statistics:
    """What all bots of a crowd have been through.

    :ivar visits: how often one was let in.
    :ivar playing: how many are in now.
    :ivar refused: how often one was not let in, by close reason.
    :ivar cut_off: how often a session was ended by another than the bot, by close reason.
    :ivar set_up_times: seconds from connecting to WELCOME, the latest.
    :ivar round_trips: seconds from an INPUT to the snapshot that heeds it, the latest.
    """

    def __init__(self) -> None:
        self.visits = 0
        self.playing = 0
        self.refused: dict[str, int] = {}
        self.cut_off: dict[str, int] = {}
        self.set_up_times: deque[float] = deque(maxlen=SAMPLES_MAX)
        self.round_trips: deque[float] = deque(maxlen=SAMPLES_MAX)


class Crowd:
    """Bots that come and go.

    :param host: where the proxy listens, at ``port``.
    :param entropy: gives what is random: how long bots stay, rest, and take to decide.
    :param on_trouble: called with a text, to be escaped before it is shown, when a bot saw what it should not see. If
        it makes no sense to come again, it does not; but it counts as one of the crowd.
    :param game: the arena's name, where the proxy has several games.
    :ivar statistics: what all of them have been through.
    """

    def __init__(
        self,
        loop: Loop,
        host: str,
        port: int,
        entropy: Entropy,
        on_trouble: Callable[[str], None],
        game: str | None = None,
    ) -> None:
        self.statistics = Statistics()
        self._loop = loop
        self._address = host, port
        self._game = game
        self._chance = Chance(entropy)
        self._on_trouble = on_trouble
        self._bots: list[Bot] = []
        self._leaving: list[Bot] = []

    def __len__(self) -> int:
        return len(self._bots)

    def add(self, count: int) -> None:
        """So many more bots come."""
        for number in range(len(self._bots) + 1, len(self._bots) + count + 1):
            name = f"bot-{number}"
            client = Client(self._loop, *self._address, Guest(name, game=self._game))
            bot = Bot(client, self._chance, name, self.statistics, self._on_trouble)
            self._bots.append(bot)
            bot.come()

    def remove(self, count: int) -> None:
        """So many bots leave and do not come again: those that came last; all, if there are fewer."""
        self._leaving = [bot for bot in self._leaving if not bot.is_gone]
        for _ in range(min(count, len(self._bots))):
            bot = self._bots.pop()
            bot.leave()
            self._leaving.append(bot)

    def stop(self) -> Awaitable[object]:
        """All bots leave.

        :return: a future: when none is connected any more.
        """
        self.remove(len(self._bots))
        gone = [bot.gone for bot in self._leaving]
        return cast(Awaitable[object], self._loop.txaio.gather(gone, consume_exceptions=False))


class Bot:
    """One of a crowd. It comes again after each rest until it is to leave.

    :ivar gone: a future: when it has left and comes no more.
    """

    def __init__(
        self,
        client: Client,
        chance: Chance,
        name: str,
        statistics: Statistics,
        on_trouble: Callable[[str], None],
    ) -> None:
        self._client = client
        self._loop = client.loop
        self._chance = chance
        self._name = name
        self._statistics = statistics
        self._on_trouble = on_trouble
        self._life: Any = None  # the future of _live, which asyncio itself does not keep
        self._under_way: Any = None  # what may be cancelled
        self._session: Session | None = None
        self._connects_at = 0.0
        self._leaving = False
        self.gone: Any = self._loop.txaio.create_future()

    @property
    def is_gone(self) -> bool:
        """Whether it has left and comes no more."""
        return bool(self._loop.txaio.is_called(self.gone))

    def come(self) -> None:
        """Connect, and play."""
        self._life = self._loop.txaio.as_future(self._live)

    def leave(self) -> None:
        """Leave, and come no more."""
        self._leaving = True
        if self._session is not None:
            self._session.leave()
        else:
            self._cancel()

    def _cancel(self) -> None:
        """Let it wait no longer."""
        txaio = self._loop.txaio
        if self._under_way is not None and not txaio.is_called(self._under_way):
            txaio.cancel(self._under_way)

    async def _live(self) -> None:
        try:
            await self._come_and_go()
        except BaseException:  # cancelled, by leave
            if not self._leaving:
                raise
        finally:
            self._loop.txaio.resolve(self.gone, None)

    async def _come_and_go(self) -> None:
        as_future = self._loop.txaio.as_future
        try:
            while not self._leaving:
                self._connects_at = self._loop.seconds()
                self._under_way = as_future(
                    keep_playing,
                    self._client,
                    self._play,
                    entropy=self._chance.bytes,
                    backoff=BACKOFF,
                    on_pause=self._pause,
                )
                await self._under_way
                if not self._leaving:
                    self._under_way = as_future(sleep, self._loop, self._chance.between(REST))
                    await self._under_way
        except Refused as refusal:
            self._count_refusal(refusal)
            self._tell(f"was not let in: {refusal}")
        except ProtocolError as error:
            self._tell(str(error))
        except SessionEnded:
            pass  # _play has told

    async def _play(self, session: Session) -> None:
        """Play one session to its end."""
        statistics = self._statistics
        statistics.visits += 1
        statistics.playing += 1
        statistics.set_up_times.append(self._loop.seconds() - self._connects_at)
        self._session = session
        visit = Visit(self._loop, self._chance, session, statistics.round_trips.append)
        ending = await session.ended
        visit.over()
        statistics.playing -= 1
        self._session = None
        if visit.trouble:
            raise ProtocolError(visit.trouble)
        if ending.end is not End.LEFT:
            code = _known(ending.code)
            statistics.cut_off[code] = statistics.cut_off.get(code, 0) + 1
            if code != CloseReason.DRAINING:  # which is how operators take a game server away
                self._tell(f"was cut off: {ending.code}: {ending.message}")
            raise SessionEnded(ending)

    def _pause(self, seconds: float, reason: Exception) -> None:
        """It is not in, or not any more, and tries again later."""
        if self._leaving:
            raise _Leaving
        self._connects_at = self._loop.seconds() + seconds
        if isinstance(reason, Refused):  # that there is no room now is no trouble
            self._count_refusal(reason)
        elif isinstance(reason, OSError):
            self._tell(f"could not connect: {reason}")

    def _count_refusal(self, refusal: Refused) -> None:
        code, refused = _known(refusal.code), self._statistics.refused
        refused[code] = refused.get(code, 0) + 1

    def _tell(self, trouble: str) -> None:
        self._on_trouble(f"{self._name} {trouble}")
        if self._leaving:  # as who heard that wants it
            raise _Leaving


class _Leaving(Exception):
    """The bot is to come no more."""


def _known(code: str) -> str:
    """A close reason, as it is counted: a proxy may say what it likes, but not fill the memory with it."""
    return code if code in _CODES else "other"


_CODES: Final = frozenset(CloseReason)


class Visit:
    """A bot's session: it looks at what comes, and runs.

    :param on_round_trip: called with each round trip, in seconds.
    :ivar trouble: what it saw that cannot be; empty if there was nothing.
    """

    def __init__(
        self,
        loop: Loop,
        chance: Chance,
        session: Session,
        on_round_trip: Callable[[float], object],
    ) -> None:
        self.trouble = ""
        self._loop = loop
        self._session = session
        self._sight = Sight(loop.seconds, on_round_trip)
        self._reaction = chance.between(REACTION)
        self._heard_at = self._decide_at = loop.seconds()
        self._leave_at = loop.seconds() + chance.between(STAY)
        self._next: Timer | None = None
        self._look()
        session.on_settings = self._settings_came
        session.on_frame = self._received

    def over(self) -> None:
        """The session has ended."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self) -> None:
        """See whether it is time to go."""
        self._next = None
        now = self._loop.seconds()
        if now - self._heard_at > SILENCE_MAX:
            self._give_up(f"saw nothing for {SILENCE_MAX:g} s")
        elif now >= self._leave_at:
            self._session.leave()
        if self._session.ending is None:
            self._next = self._loop.call_later(LOOK_INTERVAL, self._look)

    def _settings_came(self, settings: bytes) -> None:
        try:
            self._sight.settings(settings)
        except BadFrame as error:
            self._give_up(f"saw what cannot be: {error}")

    def _received(self, body: bytes) -> None:
        try:
            kind = self._sight.received(body)
        except BadFrame as error:
            self._give_up(f"saw what cannot be: {error}")
            return
        if kind is ArenaFrame.SNAPSHOT:
            self._heard_at = self._loop.seconds()
            if self._heard_at >= self._decide_at:
                self._decide_at = self._heard_at + self._reaction
                self._decide()

    def _decide(self) -> None:
        sight = self._sight
        walls, snapshot, me = sight.walls, sight.snapshot, sight.self_seen
        if walls is None or snapshot is None or me is None:
            return
        # An INPUT that the proxy does not take is not for later: the next says all that counts.
        with suppress(SendBufferFull):
            self._session.send(sight.input(*choose(walls, snapshot, me)))

    def _give_up(self, trouble: str) -> None:
        self.trouble = trouble
        self._session.leave()
