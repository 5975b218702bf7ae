"""Playing on when connections break: connect again, after growing pauses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from gameproxy.client.client import Client, Refused
from gameproxy.client.session import Session, SessionEnded
from gameproxy.loops import Loop
from gameproxy.messages import Status
from gameproxy.reasons import CloseReason

if TYPE_CHECKING:
    from gameproxy.interfaces import Entropy

T = TypeVar("T")

LONGEST_HEEDED: Final = 3600.0
"""Seconds that a proxy may ask a client to wait; more is taken for so many."""
WORTH_AGAIN: Final = frozenset(
    {
        CloseReason.SERVER_LOST,
        CloseReason.AUTH_TIMEOUT,
        CloseReason.THROTTLED,
        CloseReason.LIMIT_EXCEEDED,
        CloseReason.PROXY_FULL,
        CloseReason.QUEUE_FULL,
        CloseReason.QUEUE_TIMEOUT,
        CloseReason.NO_SERVER,
        CloseReason.START_FAILED,
        CloseReason.SERVER_UNREACHABLE,
        CloseReason.HANDSHAKE_FAILED,
        CloseReason.ALREADY_CONNECTED,
        CloseReason.DRAINING,
        CloseReason.INTERNAL,
    }
)
"""Codes after which to connect again makes sense without anybody changing anything."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to pause before connecting again: longer each time, and by chance, so that not all clients of a proxy
    that was away come back at once.

    :param first: seconds of the first pause at most, more than 0; each is at least half of what it is at most.
    :param factor: how much longer each is than the one before, 1 or more.
    :param longest: seconds of any pause at most, unless the proxy asks for a longer one.
    :param settled: seconds that a session must have lasted for the pauses to begin again with the first.
    :raises ValueError: they would not be pauses.
    """

    first: float = 0.5
    factor: float = 2.0
    longest: float = 30.0
    settled: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.first <= self.longest < float("inf")):
            raise ValueError("first must be more than 0, and at most longest")
        if not 1 <= self.factor < float("inf"):
            raise ValueError("factor must be 1 or more")

    def pause(self, before: int, entropy: Entropy) -> float:
        """Seconds to pause.

        :param before: how many pauses there were since a session last settled.
        """
        most = self.first
        for _ in range(before):
            most = min(most * self.factor, self.longest)
            if most == self.longest or self.factor == 1:
                break
        return most * (0.5 + int.from_bytes(entropy(4), "big") / 2**33)


async def keep_playing(
    client: Client,
    play: Callable[[Session], Awaitable[T]],
    *,
    entropy: Entropy,
    backoff: Backoff = Backoff(),
    on_status: Callable[[Status], object] | None = None,
    on_pause: Callable[[float, Exception], object] | None = None,
) -> T | None:
    """Connect and play; and when the connection cannot be made or breaks, or the proxy has no place or is about to
    restart, pause and do it again.

    :param play: plays one session. When it returns, that is left, and all is over.
    :param entropy: gives random bytes, for the pauses.
    :param on_status: called while the client waits for a place.
    :param on_pause: called before each pause with its seconds and the reason for it.
    :return: what ``play`` has returned; ``None`` if the game server has ended the session in good order, and ``play``
        let that exception pass.
    :raises Refused: the client is not let in, and will not be the next time either.
    :raises SessionEnded: likewise: kicked, banned, replaced, idle, ...
    :raises ProtocolError: what answers is no proxy of this dialect and frame format.
    :raises Exception: what else ``play`` raises; the connection is ended.
    """
    loop = client.loop
    pauses = 0
    while True:
        least = 0.0
        began: float | None = None
        try:
            session = await client.connect(on_status)
            began = loop.seconds()
            async with session:
                return await play(session)
        except SessionEnded as end:
            if end.ending.is_orderly:
                return None
            if end.ending.code not in WORTH_AGAIN:
                raise
            reason: Exception = end
        except Refused as refusal:
            if refusal.code not in WORTH_AGAIN:
                raise
            reason, least = refusal, min(refusal.retry_after or 0.0, LONGEST_HEEDED)
        except OSError as error:
            if began is not None:
                raise
            reason = error
        if began is not None and loop.seconds() - began >= backoff.settled:
            pauses = 0
        seconds = max(backoff.pause(pauses, entropy), least)
        pauses += 1
        if on_pause is not None:
            on_pause(seconds, reason)
        await sleep(loop, seconds)


async def sleep(loop: Loop, seconds: float) -> None:
    """Let time pass. May be cancelled."""
    over = loop.txaio.create_future()
    timer = loop.call_later(seconds, lambda: loop.txaio.resolve(over, None))
    try:
        await over
    except BaseException:  # it is cancelled
        timer.cancel()
        raise
