"""A game that does what its players ask for, on the loop that is named: ``sdk_game.py twisted|asyncio``"""

from __future__ import annotations

import sys
from typing import Any

from gameproxy.gameserver import Game, GameServer, Player, Refused, run
from gameproxy.loops import Loop


class Obedient(Game):
    """Echoes frames, late if they say so, and knows some commands."""

    def __init__(self, loop: Loop | None) -> None:
        self.loop = loop
        self.plays_on = False

    async def pause(self, seconds: float) -> None:
        """Let the loop turn for so long."""
        txaio = self.server.loop.txaio
        over = txaio.create_future()
        self.server.call_later(seconds, lambda: txaio.resolve(over))
        await over

    async def started(self, server: GameServer) -> None:
        self.server = server
        await self.pause(0.01)
        print("started", flush=True)

    async def admitting(self, player: Player) -> None:
        await self.pause(0.01)
        if "refuse" in player.properties:
            raise Refused("no", "You asked for it.")

    async def settings(self, player: Player) -> bytes:
        await self.pause(0.01)
        return b"settings of " + player.name.encode()

    def joined(self, player: Player) -> None:
        print("joined", player.name, flush=True)

    async def received(self, player: Player, body: bytes) -> None:
        command = body[1:].decode("latin-1")
        if command.startswith("late"):
            await self.pause(0.01)
        elif command == "boom":
            raise ZeroDivisionError("asked for")
        elif command == "flood":
            for _ in range(1000):
                player.send(b"\x10" * 65536)
        elif command == "modules":
            body = b"\x10" + str("twisted.internet.reactor" in sys.modules).encode()
        elif command == "play on":
            self.plays_on = True
        elif command == "reserve":
            self.server.reserve(60.0)
        elif command == "shutdown":
            self.server.shutdown()
        player.send(body)

    def left(self, player: Player) -> None:
        print("left", player.name, flush=True)

    def draining(self, server: GameServer) -> Any:
        print("draining", flush=True)
        if not self.plays_on:
            super().draining(server)

    async def stopped(self, server: GameServer) -> None:
        print("stopped", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "asyncio":
        from gameproxy.loops.on_asyncio import AsyncioLoop

        loop = AsyncioLoop()
        run(Obedient(loop), loop)
    else:
        run(Obedient(None))
