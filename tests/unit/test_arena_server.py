"""gameproxy.arena.server"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.arena.field import DASH_STEPS, PLAYERS_MAX, Won
from gameproxy.arena.frames import (
    ArenaFrame,
    Input,
    Joined,
    decode_arena,
    decode_joined,
    decode_snapshot,
    encode_left,
    encode_won,
)
from gameproxy.arena.server import INPUTS_MAX, INPUTS_PER_STEP, Arena
from gameproxy.arena.walls import ARENA
from gameproxy.gameserver import Refused
from gameproxy.testing import seeded_entropy
from tests.arena_proxy import FakePlayer, FakeServer

EAST, WEST = 1, 5


class ArenaTests(SynchronousTestCase):
    """The game server."""

    def setUp(self) -> None:
        self.arena = Arena(seeded_entropy())
        self.server = FakeServer()
        self.arena.started(self.server)

    def join(self, name: str) -> FakePlayer:
        player = FakePlayer(f"guest:{name}")
        self.arena.admitting(player)
        self.server.players.append(player)
        self.arena.joined(player)
        return player

    def leave(self, player: FakePlayer) -> None:
        self.server.players.remove(player)
        self.arena.left(player)

    def test_twenty_times_a_second(self) -> None:
        """It steps 20 times a second."""
        self.assertEqual(self.server.turns, [(0.05, self.arena.step)])

    def test_settings(self) -> None:
        """Its settings are the field."""
        self.assertEqual(decode_arena(self.arena.settings(FakePlayer("ana"))), ARENA)

    def test_join(self) -> None:
        """Who comes hears who is there, and who it is itself; the others hear of it. All hear who leaves."""
        ana = self.join("ana")
        ben = self.join("ben")
        self.assertEqual(
            [decode_joined(body) for body in ana.sent],
            [Joined(0, True, "guest:ana"), Joined(1, False, "guest:ben")],
        )
        self.assertEqual(
            [decode_joined(body) for body in ben.sent],
            [Joined(0, False, "guest:ana"), Joined(1, True, "guest:ben")],
        )
        self.leave(ana)
        self.assertEqual(ben.sent[-1], encode_left(0))
        self.assertEqual(list(self.arena.field.runners), [1])

    def test_full(self) -> None:
        """When the field is full, the proxy is to try another game server."""
        for number in range(PLAYERS_MAX):
            self.join(str(number))
        refused = self.assertRaises(Refused, self.arena.admitting, FakePlayer("one more"))
        self.assertEqual(refused.code, "full")

    def test_snapshot(self) -> None:
        """Each step, all get the same snapshot: all players, with the last input that was heeded."""
        ana, ben = self.join("ana"), self.join("ben")
        self.arena.received(ana, Input(7, EAST).encode())
        self.arena.received(ana, Input(8, WEST).encode())
        self.arena.step()
        self.assertIs(ana.sent[-1], ben.sent[-1])
        snapshot = decode_snapshot(ana.sent[-1])
        self.assertEqual(snapshot.tick, 1)
        self.assertEqual([(one.id, one.sequence) for one in snapshot.players], [(0, 8), (1, 0)])
        self.assertEqual([one.heading for one in snapshot.players], [WEST, 0])

    def test_dash(self) -> None:
        """A dash that came before another input in the same step counts."""
        ana = self.join("ana")
        self.arena.received(ana, Input(1, EAST, True).encode())
        self.arena.received(ana, Input(2, WEST).encode())
        self.assertEqual(ana.data.runner.dashing, DASH_STEPS)

    def test_won(self) -> None:
        """When a round is over, all hear who has won."""
        ana = self.join("ana")
        ana.data.runner.score = 5
        self.arena.field.coins.clear()
        self.arena.field.steps_left = 1
        self.arena.step()
        self.assertEqual(ana.sent[-2], encode_won(Won(0, 5)))
        self.assertEqual(ana.sent[-1][0], ArenaFrame.SNAPSHOT)

    def test_nobody(self) -> None:
        """While nobody is there, time stands still."""
        self.arena.step()
        self.assertEqual(self.arena.field.tick, 0)

    def test_nonsense(self) -> None:
        """Who sends what is no input is told so, and its session ends."""
        for body in (b"", b"\x10", b"\x10hello", Input(1, EAST).encode()[:-1] + b"\x02"):
            player = self.join("ana")
            self.arena.received(player, body)
            assert player.closed is not None
            code, message = player.closed
            self.assertEqual(code, "protocol_error")
            self.assertIn("The arena does not understand this: ", message)

    def test_flood(self) -> None:
        """Who sends more than so many inputs for each step, after some time's worth at once, is told so, and its
        session ends; who keeps to it plays on for ever."""
        ana, ben = self.join("ana"), self.join("ben")
        for _ in range(3 * INPUTS_MAX):
            for _ in range(INPUTS_PER_STEP):
                self.arena.received(ben, Input(1, EAST).encode())
            self.arena.step()
        for _ in range(INPUTS_MAX):
            self.arena.received(ana, Input(1, EAST).encode())
        self.assertIsNone(ana.closed)
        self.arena.received(ana, Input(1, EAST).encode())
        assert ana.closed is not None
        self.assertEqual(ana.closed[0], "limit_exceeded")
        self.assertIsNone(ben.closed)
