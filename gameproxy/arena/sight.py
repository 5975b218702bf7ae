"""What a client knows of the arena, from the frames that come; for people's clients and for bots.

It believes nothing: what cannot be so in this game is :class:`~gameproxy.arena.frames.BadFrame`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from gameproxy.arena.field import Won
from gameproxy.arena.frames import (
    ArenaFrame,
    BadFrame,
    Input,
    Seen,
    Snapshot,
    decode_arena,
    decode_joined,
    decode_left,
    decode_snapshot,
    decode_won,
    type_of,
)
from gameproxy.arena.walls import Walls

UNDER_WAY_MAX: Final = 100
"""Inputs whose time of sending is remembered until they are heeded; older ones give no round trip."""


class Sight:
    """What one client knows.

    :param seconds: gives the time, in seconds.
    :param on_round_trip: called with each round trip that was measured.
    :ivar walls: of the field; ``None`` until the settings came.
    :ivar me: the client's own id; ``None`` until it was told.
    :ivar names: of the players, by id; from outside, so they are to be escaped before they are shown.
    :ivar snapshot: the last one; ``None`` before the first.
    :ivar round_trip: seconds from the last input that was heeded to the snapshot that says so. A game server heeds
        inputs once in a step, so this is up to a step more than the network takes.
    :ivar last_won: how the last round ended, and the winner's name.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        on_round_trip: Callable[[float], object] = lambda round_trip: None,
    ) -> None:
        self.walls: Walls | None = None
        self.me: int | None = None
        self.names: dict[int, str] = {}
        self.snapshot: Snapshot | None = None
        self.round_trip: float | None = None
        self.last_won: tuple[Won, str] | None = None
        self._seconds = seconds
        self._on_round_trip = on_round_trip
        self._sequence = 0
        self._heeded = 0
        self._under_way: deque[tuple[int, float]] = deque(maxlen=UNDER_WAY_MAX)

    @property
    def self_seen(self) -> Seen | None:
        """The client's own player in the last snapshot."""
        if self.snapshot is None:
            return None
        return next((one for one in self.snapshot.players if one.id == self.me), None)

    def input(self, heading: int, dash: bool = False) -> bytes:
        """The next INPUT to be sent."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._under_way.append((self._sequence, self._seconds()))
        return Input(self._sequence, heading, dash).encode()

    def settings(self, settings: bytes) -> None:
        """The settings came.

        :raises BadFrame: they are none.
        """
        self.walls = decode_arena(settings)

    def received(self, body: bytes) -> ArenaFrame:
        """A frame came.

        :return: its type.
        :raises BadFrame: it is not the arena's, or says what cannot be.
        """
        kind = type_of(body)
        if kind is ArenaFrame.SNAPSHOT:
            self._look_at(decode_snapshot(body))
        elif kind is ArenaFrame.JOINED:
            joined = decode_joined(body)
            if joined.id in self.names or (joined.you and self.me is not None):
                raise BadFrame(f"player {joined.id} comes in twice")
            self.names[joined.id] = joined.name
            if joined.you:
                self.me = joined.id
        elif kind is ArenaFrame.LEFT:
            self._name_of(decode_left(body), self.names.pop)
        elif kind is ArenaFrame.WON:
            won = decode_won(body)
            self.last_won = won, self._name_of(won.id, self.names.__getitem__)
        else:
            raise BadFrame(f"a game server does not send {kind.name}")
        return kind

    def _name_of(self, id: int, take: Callable[[int], str]) -> str:
        try:
            return take(id)
        except KeyError:
            raise BadFrame(f"nobody knows player {id}") from None

    def _look_at(self, snapshot: Snapshot) -> None:
        walls = self.walls
        if walls is None:
            raise BadFrame("a snapshot before the settings")
        if self.snapshot is not None and not _is_after(snapshot.tick, self.snapshot.tick):
            raise BadFrame(f"tick {snapshot.tick} after tick {self.snapshot.tick}")
        for one in snapshot.players:
            if one.id not in self.names:
                raise BadFrame(f"nobody knows player {one.id}")
            if walls.is_wall(*one.tile):
                raise BadFrame(f"player {one.id} is in a wall")
        if any(walls.is_wall(*coin) for coin in snapshot.coins):
            raise BadFrame("a coin is in a wall")
        self.snapshot = snapshot
        own = self.self_seen
        if own is None:
            raise BadFrame("a snapshot without the one who gets it")
        self._measure(own.sequence)

    def _measure(self, heeded: int) -> None:
        """Take note of what the game server has heeded."""
        new = (heeded - self._heeded) & 0xFFFF
        if new > (self._sequence - self._heeded) & 0xFFFF:
            raise BadFrame(f"input {heeded} was heeded, which has not been sent")
        while self._under_way and (self._under_way[0][0] - self._heeded) & 0xFFFF <= new:
            sequence, sent_at = self._under_way.popleft()
            if sequence == heeded:
                self.round_trip = self._seconds() - sent_at
                self._on_round_trip(self.round_trip)
        self._heeded = heeded


def _is_after(tick: int, other: int) -> bool:
    """Whether a tick comes after another: they begin again at 2 to the power of 32."""
    return 0 < (tick - other) & 0xFFFFFFFF < 0x80000000
