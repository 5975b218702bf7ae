"""The arena's game server: what players want goes in, and 20 times a second all of them get how the field stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gameproxy.arena.field import STEPS_PER_SECOND, Field, Runner
from gameproxy.arena.frames import (
    BadFrame,
    Joined,
    decode_input,
    encode_arena,
    encode_left,
    encode_won,
    snapshot_of,
)
from gameproxy.arena.walls import ARENA, Walls
from gameproxy.gameserver import Game, GameServer, Player, Refused
from gameproxy.interfaces import Entropy
from gameproxy.reasons import CloseReason

INPUTS_PER_STEP: Final = 2
"""INPUTs that a player may send in a step, on average."""
INPUTS_MAX: Final = 400
"""INPUTs that may come at once, because they were held up: those of ten seconds."""


@dataclass(slots=True)
class Seat:
    """A player who is in.

    :ivar sequence: of the last INPUT.
    :ivar inputs_left: how many may come now.
    """

    runner: Runner
    name: str
    sequence: int = 0
    inputs_left: int = INPUTS_MAX


class Arena(Game):
    """A field, and the players on it. While nobody is there its time stands still.

    :param entropy: for what happens by chance.
    """

    _server: GameServer

    def __init__(self, entropy: Entropy, walls: Walls = ARENA) -> None:
        self.field = Field(walls, entropy)
        self._settings = encode_arena(walls)
        self._seats: dict[int, Seat] = {}

    def started(self, server: GameServer) -> None:
        self._server = server
        server.every(1 / STEPS_PER_SECOND, self.step)

    def admitting(self, player: Player) -> None:
        if self.field.is_full:
            raise Refused("full", "The field is full.")

    def settings(self, player: Player) -> bytes:
        return self._settings

    def joined(self, player: Player) -> None:
        runner = self.field.enter()
        seat = player.data = Seat(runner, player.name)
        for other in self._seats.values():
            player.send(Joined(other.runner.id, False, other.name).encode())
        player.send(Joined(runner.id, True, seat.name).encode())
        self._server.broadcast(Joined(runner.id, False, seat.name).encode(), but=player)
        self._seats[runner.id] = seat

    def received(self, player: Player, body: bytes) -> None:
        seat: Seat = player.data
        seat.inputs_left -= 1
        if seat.inputs_left < 0:
            player.close("You sent more than anybody can type.", CloseReason.LIMIT_EXCEEDED)
            return
        try:
            wish = decode_input(body)
        except BadFrame as error:
            player.close(
                f"The arena does not understand this: {error}.", CloseReason.PROTOCOL_ERROR
            )
            return
        # However many come in a step, the last heading counts, and one dash.
        seat.sequence = wish.sequence
        seat.runner.heading = wish.heading
        if wish.dash:
            self.field.dash(seat.runner)

    def left(self, player: Player) -> None:
        runner = player.data.runner
        del self._seats[runner.id]
        self.field.leave(runner)
        self._server.broadcast(encode_left(runner.id))

    def step(self) -> None:
        """Let a twentieth of a second pass, and tell all how it stands then."""
        if not self._seats:
            return
        won = self.field.step()
        for seat in self._seats.values():
            seat.inputs_left = min(seat.inputs_left + INPUTS_PER_STEP, INPUTS_MAX)
        if won is not None:
            self._server.broadcast(encode_won(won))
        sequences = {id: seat.sequence for id, seat in self._seats.items()}
        # Encoded once for all.
        self._server.broadcast(snapshot_of(self.field, sequences).encode())
