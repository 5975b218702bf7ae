"""gameproxy.arena.frames"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.arena.field import DASH_STEPS, Field, Won
from gameproxy.arena.frames import (
    ArenaFrame,
    BadFrame,
    Input,
    Joined,
    Seen,
    Snapshot,
    decode_arena,
    decode_input,
    decode_joined,
    decode_left,
    decode_snapshot,
    decode_won,
    encode_arena,
    encode_left,
    encode_won,
    seen,
    snapshot_of,
    type_of,
)
from gameproxy.arena.walls import ARENA, Tile, Walls
from gameproxy.testing import seeded_entropy

u8, u16, u32 = (st.integers(0, 256**size - 1) for size in (1, 2, 4))
ids = st.integers(0, 63)
looks = st.builds(
    lambda heading, state: heading | state << 4, st.integers(0, 8), st.integers(0, 15)
)
players = st.lists(
    st.builds(Seen, ids, u16, u16, looks, u16, u16), unique_by=lambda one: one.id, max_size=64
).map(tuple)
tiles = st.lists(st.builds(Tile, u8, u8), unique=True, max_size=255).map(tuple)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=70)
CODERS: tuple[tuple[Callable[[bytes], Any], Callable[[Any], bytes]], ...] = (
    (decode_input, Input.encode),
    (decode_snapshot, Snapshot.encode),
    (decode_joined, Joined.encode),
    (decode_left, encode_left),
    (decode_won, encode_won),
    (decode_arena, encode_arena),
)


class FramesTests(SynchronousTestCase):
    """What is sent is what is read."""

    @given(st.builds(Input, u16, st.integers(0, 8), st.booleans()))
    def test_input(self, input: Input) -> None:
        """INPUT: 5 bytes."""
        body = input.encode()
        self.assertEqual((len(body), body[0]), (5, ArenaFrame.INPUT))
        self.assertEqual(decode_input(body), input)

    @given(st.builds(Snapshot, u32, u16, players, tiles))
    def test_snapshot(self, snapshot: Snapshot) -> None:
        """SNAPSHOT: 9 bytes, and 10 for each player, and 2 for each coin."""
        body = snapshot.encode()
        self.assertEqual(len(body), 9 + 10 * len(snapshot.players) + 2 * len(snapshot.coins))
        self.assertEqual(body[0], ArenaFrame.SNAPSHOT)
        self.assertEqual(decode_snapshot(body), snapshot)

    @given(st.builds(Joined, ids, st.booleans(), names))
    def test_joined(self, joined: Joined) -> None:
        """JOINED: 3 bytes, and the name."""
        body = joined.encode()
        self.assertEqual(len(body), 3 + len(joined.name.encode()))
        self.assertEqual(decode_joined(body), joined)

    @given(ids, u16)
    def test_left_and_won(self, id: int, score: int) -> None:
        """LEFT: 2 bytes; WON: 4."""
        self.assertEqual(decode_left(encode_left(id)), id)
        self.assertEqual(decode_won(encode_won(Won(id, score))), Won(id, score))
        self.assertEqual((len(encode_left(id)), len(encode_won(Won(id, score)))), (2, 4))

    @given(st.integers(1, 30), st.integers(1, 30), st.randoms(use_true_random=False))
    def test_arena(self, width: int, height: int, chance: object) -> None:
        """The settings: 4 bytes and a bit for each tile."""
        rows = [
            "".join("#" if chance.random() < 0.4 else "." for _ in range(width))
            for _ in range(height)
        ]
        rows[0] = "." + rows[0][1:]
        walls = Walls(["#" * (width + 2), *(f"#{row}#" for row in rows), "#" * (width + 2)])
        settings = encode_arena(walls)
        self.assertEqual(len(settings), 4 + ((width + 2) * (height + 2) + 7) // 8)
        self.assertEqual(decode_arena(settings), walls)

    @given(st.binary(max_size=60), st.sampled_from([b"", *(bytes([kind]) for kind in ArenaFrame)]))
    def test_nonsense(self, rest: bytes, start: bytes) -> None:
        """Whatever comes, a decoder reads it or raises BadFrame; and what it reads is written the same."""
        body = start + rest
        for decode, encode in CODERS:
            try:
                message = decode(body)
            except BadFrame:
                continue
            self.assertEqual(encode(message), body)

    def test_type(self) -> None:
        """The first byte says what a body is; another one, or none, is no frame of the arena's."""
        for kind in ArenaFrame:
            self.assertIs(type_of(bytes([kind]) + b"rest"), kind)
        for body in (b"", b"\x0f", b"\x15", b"\xff"):
            self.assertRaises(BadFrame, type_of, body)

    def test_refused(self) -> None:
        """Frames that are almost right are refused."""
        seen_twice = Seen(1, 300, 300, 0, 0, 0)
        for decode, body in (
            (decode_input, "10 0001 09 00"),  # a tenth heading
            (decode_input, "10 0001 00 02"),  # neither to dash nor not to
            (decode_input, "11 0001 00 00"),
            (decode_input, "10 0001 00"),
            (decode_input, "10 0001 00 00 00"),
            (decode_snapshot, "11 00000001 0001 00"),
            (decode_snapshot, "11 00000001 0001 00 01"),
            (decode_snapshot, "11 00000001 0001 00 00 00"),
            (decode_snapshot, "10 00000001 0001 00 00"),
            (decode_snapshot, "11 00000001 0001 01 00 40 0100 0100 00 0000 0000"),  # player 64
            (decode_snapshot, "11 00000001 0001 01 00 01 0100 0100 09 0000 0000"),
            (decode_snapshot, Snapshot(1, 1, (seen_twice, seen_twice), ()).encode().hex()),
            (decode_snapshot, Snapshot(1, 1, (), (Tile(1, 1), Tile(1, 1))).encode().hex()),
            (decode_joined, "12 40 00 61"),
            (decode_joined, "12 01 02 61"),
            (decode_joined, "13 01 00 61"),
            (decode_joined, "12 01 00"),
            (decode_joined, "12 01"),
            (decode_joined, "12 01 00 ff"),
            (decode_joined, "12 01 00" + "61" * 71),
            (decode_left, "13 40"),
            (decode_left, "12 01"),
            (decode_left, "13"),
            (decode_won, "14 40 0001"),
            (decode_won, "13 01 0001"),
            (decode_arena, "01 14 03 03 f7 ff"),  # not filled up with zeros
            (decode_arena, "01 14 03 03 ff 80"),  # no floor
            (decode_arena, "01 14 03 03 f7"),
            (decode_arena, "01 14 03 03 f7 80 00"),
            (decode_arena, "02 14 03 03 f7 80"),
            (decode_arena, "01 15 03 03 f7 80"),
            (decode_arena, "01 14 00 00"),
            (decode_arena, ""),
        ):
            with self.assertRaises(BadFrame, msg=body):
                decode(bytes.fromhex(body))

    def test_documented(self) -> None:
        """The examples of docs/arena are what is sent."""
        snapshot = Snapshot(258, 2400, (Seen(1, 0x0380, 0x0280, 0x13, 5, 7),), (Tile(4, 9),))
        self.assertEqual(Input(1, 3, True).encode().hex(" "), "10 00 01 03 01")
        self.assertEqual(
            snapshot.encode().hex(" "),
            "11 00 00 01 02 09 60 01 01 01 03 80 02 80 13 00 05 00 07 04 09",
        )
        self.assertEqual(Joined(1, True, "ana").encode().hex(" "), "12 01 01 61 6e 61")
        self.assertEqual(encode_left(1).hex(" "), "13 01")
        self.assertEqual(encode_won(Won(1, 260)).hex(" "), "14 01 01 04")
        room = Walls(["####", "#..#", "####"])
        self.assertEqual(encode_arena(room).hex(" "), "01 14 04 03 f9 f0")
        self.assertEqual(len(encode_arena(ARENA)), 83)

    def test_of_field(self) -> None:
        """A snapshot of a field says how all players and coins stand, and which input of each was heeded."""
        field = Field(ARENA, seeded_entropy())
        runners = [field.enter(), field.enter()]
        field.tick = 2**32 + 5
        snapshot = snapshot_of(field, {0: 11, 1: 12})
        self.assertEqual((snapshot.tick, snapshot.steps_left), (5, field.steps_left))
        self.assertEqual(snapshot.players, (seen(runners[0], 11), seen(runners[1], 12)))
        self.assertEqual(snapshot.coins, tuple(field.coins))
        decode_snapshot(snapshot.encode())

    def test_look(self) -> None:
        """A player's look says its heading and its states, each for itself."""
        runner = Field(ARENA, seeded_entropy()).enter()
        runner.safe = 0
        for name, value in (
            ("tagger", True),
            ("dashing", DASH_STEPS),
            ("safe", 1),
            ("stunned", 1),
            ("heading", 8),
        ):
            before = getattr(runner, name)
            setattr(runner, name, value)
            one = seen(runner, 0)
            states = {
                "tagger": one.tagger,
                "dashing": one.dashing,
                "safe": one.safe,
                "stunned": one.stunned,
            }
            self.assertEqual([key for key, on in states.items() if on], [name][: name != "heading"])
            self.assertEqual(one.heading, 8 if name == "heading" else 0)
            setattr(runner, name, before)
        self.assertEqual(one.tile, (runner.x // 256, runner.y // 256))
