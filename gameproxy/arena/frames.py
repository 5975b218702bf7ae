"""The frames of the arena (docs/arena, "Frames"): a byte of type, then numbers, the higher bytes first.

Encoders give a whole body; decoders take a whole body, and raise :class:`BadFrame` for anything that is not exactly
what it should be. The settings have no type: they travel in a SETTINGS of the proxy's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from struct import Struct
from typing import Final, NamedTuple

from gameproxy.arena.field import HEADINGS, PLAYERS_MAX, STEPS_PER_SECOND, Field, Runner, Won
from gameproxy.arena.walls import Tile, Walls

SETTINGS_VERSION: Final = 1
NAME_MAX: Final = 70
"""Most characters of a name: 64, and ``guest:`` before."""

_INPUT: Final = Struct(">BHBB")
_SNAPSHOT: Final = Struct(">BIHBB")
_PLAYER: Final = Struct(">BHHBHH")
_JOINED: Final = Struct(">BBB")
_LEFT: Final = Struct(">BB")
_WON: Final = Struct(">BBH")
_SETTINGS: Final = Struct(">BBBB")

_HEADING: Final = 0x0F
_TAGGER: Final = 0x10
_DASHING: Final = 0x20
_SAFE: Final = 0x40
_STUNNED: Final = 0x80


class ArenaFrame(IntEnum):
    """First byte of a body of the arena's."""

    INPUT = 0x10
    SNAPSHOT = 0x11
    JOINED = 0x12
    LEFT = 0x13
    WON = 0x14


class BadFrame(ValueError):
    """This is no frame of the arena's."""


def type_of(body: bytes) -> ArenaFrame:
    """What a body is.

    :raises BadFrame: it is empty, or of a type that the arena does not have.
    """
    try:
        return ArenaFrame(body[0])
    except (IndexError, ValueError):
        raise BadFrame(
            f"no frame of the arena's begins with {body[:1].hex() or 'nothing'}"
        ) from None


def _unpack(layout: Struct, body: bytes) -> tuple[int, ...]:
    if len(body) != layout.size:
        raise BadFrame(f"{len(body)} bytes, where {layout.size} are expected")
    return layout.unpack(body)


@dataclass(frozen=True, slots=True)
class Input:
    """INPUT, 5 bytes, client to game server: what a player wants from now on.

    :param sequence: a number, 0 to 65535, which comes back in the snapshots; each one more than the last, 0 after
        65535.
    :param heading: which way, an index of :data:`~gameproxy.arena.field.HEADINGS`.
    :param dash: to dash now, if that may be.
    """

    sequence: int
    heading: int
    dash: bool = False

    def encode(self) -> bytes:
        """The body of this INPUT."""
        return _INPUT.pack(ArenaFrame.INPUT, self.sequence, self.heading, self.dash)


def decode_input(body: bytes) -> Input:
    """Read an INPUT.

    :raises BadFrame: it is none.
    """
    kind, sequence, heading, dash = _unpack(_INPUT, body)
    if kind != ArenaFrame.INPUT or heading >= len(HEADINGS) or dash > 1:
        raise BadFrame("this is no INPUT")
    return Input(sequence, heading, dash == 1)


class Seen(NamedTuple):
    """A player as a snapshot has it, 10 bytes.

    :ivar x: of its place, in units; so is ``y``.
    :ivar look: heading and state, in one byte: see the properties.
    :ivar sequence: of the last INPUT that was heeded; 0 before the first.
    """

    id: int
    x: int
    y: int
    look: int
    score: int
    sequence: int

    @property
    def heading(self) -> int:
        """Which way it wants to go, an index of :data:`~gameproxy.arena.field.HEADINGS`."""
        return self.look & _HEADING

    @property
    def tagger(self) -> bool:
        """Whether it is it."""
        return bool(self.look & _TAGGER)

    @property
    def dashing(self) -> bool:
        """Whether it dashes."""
        return bool(self.look & _DASHING)

    @property
    def safe(self) -> bool:
        """Whether nobody can tag it."""
        return bool(self.look & _SAFE)

    @property
    def stunned(self) -> bool:
        """Whether it cannot move."""
        return bool(self.look & _STUNNED)

    @property
    def tile(self) -> Tile:
        """Where it is."""
        return Tile(self.x >> 8, self.y >> 8)


def seen(runner: Runner, sequence: int) -> Seen:
    """A player on the field, as a snapshot has it."""
    look = (
        runner.heading
        | (_TAGGER if runner.tagger else 0)
        | (_DASHING if runner.dashing else 0)
        | (_SAFE if runner.safe else 0)
        | (_STUNNED if runner.stunned else 0)
    )
    return Seen(runner.id, runner.x, runner.y, look, runner.score, sequence)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """SNAPSHOT, 9 bytes and 10 for each player and 2 for each coin, game server to client: how all stands.

    :param tick: steps since the game server began, modulo 2 to the power of 32.
    :param steps_left: until the round is over.
    """

    tick: int
    steps_left: int
    players: tuple[Seen, ...]
    coins: tuple[Tile, ...]

    def encode(self) -> bytes:
        """The body of this SNAPSHOT."""
        return b"".join(
            (
                _SNAPSHOT.pack(
                    ArenaFrame.SNAPSHOT,
                    self.tick,
                    self.steps_left,
                    len(self.players),
                    len(self.coins),
                ),
                *(_PLAYER.pack(*player) for player in self.players),
                bytes(chain.from_iterable(self.coins)),
            )
        )


def snapshot_of(field: Field, sequences: dict[int, int]) -> Snapshot:
    """How a field stands.

    :param sequences: of the last INPUT of each player, by id.
    """
    return Snapshot(
        field.tick & 0xFFFFFFFF,
        field.steps_left,
        tuple(seen(runner, sequences[id]) for id, runner in field.runners.items()),
        tuple(field.coins),
    )


def decode_snapshot(body: bytes) -> Snapshot:
    """Read a SNAPSHOT.

    :raises BadFrame: it is none, or it has a player or a coin twice.
    """
    kind, tick, steps_left, players, coins = _unpack(_SNAPSHOT, body[: _SNAPSHOT.size])
    end = _SNAPSHOT.size + players * _PLAYER.size
    if kind != ArenaFrame.SNAPSHOT or len(body) != end + 2 * coins:
        raise BadFrame("this is no SNAPSHOT")
    all_seen = tuple(map(Seen._make, _PLAYER.iter_unpack(body[_SNAPSHOT.size : end])))
    if any(one.id >= PLAYERS_MAX or one.heading >= len(HEADINGS) for one in all_seen):
        raise BadFrame("a player who cannot be")
    tiles = tuple(map(Tile, body[end::2], body[end + 1 :: 2]))
    if len({one.id for one in all_seen}) < players or len(set(tiles)) < coins:
        raise BadFrame("a player or a coin twice")
    return Snapshot(tick, steps_left, all_seen, tiles)


@dataclass(frozen=True, slots=True)
class Joined:
    """JOINED, 3 bytes and the name in UTF-8, game server to client: who is behind an id.

    :param you: whether it is the one who gets this.
    :param name: not empty, 70 characters at most; from outside, so it is to be escaped before it is shown.
    """

    id: int
    you: bool
    name: str

    def encode(self) -> bytes:
        """The body of this JOINED."""
        return _JOINED.pack(ArenaFrame.JOINED, self.id, self.you) + self.name.encode("utf-8")


def decode_joined(body: bytes) -> Joined:
    """Read a JOINED.

    :raises BadFrame: it is none.
    """
    kind, id, you = _unpack(_JOINED, body[: _JOINED.size])
    try:
        name = body[_JOINED.size :].decode("utf-8")
    except UnicodeDecodeError:
        raise BadFrame("a name that is not UTF-8") from None
    if kind != ArenaFrame.JOINED or id >= PLAYERS_MAX or you > 1 or not 0 < len(name) <= NAME_MAX:
        raise BadFrame("this is no JOINED")
    return Joined(id, you == 1, name)


def encode_left(id: int) -> bytes:
    """LEFT, 2 bytes, game server to client: a player is no longer there."""
    return _LEFT.pack(ArenaFrame.LEFT, id)


def decode_left(body: bytes) -> int:
    """Read a LEFT.

    :return: the player's id.
    :raises BadFrame: it is none.
    """
    kind, id = _unpack(_LEFT, body)
    if kind != ArenaFrame.LEFT or id >= PLAYERS_MAX:
        raise BadFrame("this is no LEFT")
    return id


def encode_won(won: Won) -> bytes:
    """WON, 4 bytes, game server to client: a round is over, and who has won it."""
    return _WON.pack(ArenaFrame.WON, won.id, won.score)


def decode_won(body: bytes) -> Won:
    """Read a WON.

    :raises BadFrame: it is none.
    """
    kind, id, score = _unpack(_WON, body)
    if kind != ArenaFrame.WON or id >= PLAYERS_MAX:
        raise BadFrame("this is no WON")
    return Won(id, score)


def encode_arena(walls: Walls) -> bytes:
    """The settings: 4 bytes, and a bit for each tile, row by row, 1 where a wall is; zeros fill up the last byte."""
    bits = "".join("1" if tile == "#" else "0" for row in walls.rows for tile in row)
    size = (len(bits) + 7) // 8
    head = _SETTINGS.pack(SETTINGS_VERSION, STEPS_PER_SECOND, walls.width, walls.height)
    return head + int(bits.ljust(size * 8, "0"), 2).to_bytes(size, "big")


def decode_arena(settings: bytes) -> Walls:
    """Read the settings.

    :raises BadFrame: they are none, or of another version or speed.
    """
    version, steps, width, height = _unpack(_SETTINGS, settings[: _SETTINGS.size])
    bitmap = settings[_SETTINGS.size :]
    size = (width * height + 7) // 8
    if (version, steps) != (SETTINGS_VERSION, STEPS_PER_SECOND) or len(bitmap) != size:
        raise BadFrame("these are no settings of this arena")
    bits = "".join(f"{byte:08b}" for byte in bitmap).replace("0", ".").replace("1", "#")
    if "#" in bits[width * height :]:
        raise BadFrame("the settings are not filled up with zeros")
    try:
        return Walls([bits[row * width : (row + 1) * width] for row in range(height)])
    except ValueError as error:
        raise BadFrame(f"no field: {error}") from None
