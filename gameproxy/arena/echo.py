"""The smallest game: each frame comes back. ``python -m gameproxy.arena.echo`` is what a proxy starts."""

from __future__ import annotations

from gameproxy.gameserver import Game, Player, run


class Echo(Game):
    """Sends each frame back to the player it came from."""

    def received(self, player: Player, body: bytes) -> None:
        player.send(body)


if __name__ == "__main__":
    run(Echo())
