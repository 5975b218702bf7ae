"""For game servers written in Python: what a game server behind the proxy has to do, so that the game need not.

A game is an object with a few methods::

    class Echo(Game):
        def received(self, player, body):
            player.send(body)

    run(Echo())

``run`` takes its place in the farm from the environment that the proxy gives it (docs/protocol, "What a started game
server gets"), listens, announces itself, and lets in whom the proxy admits. It runs on Twisted's reactor, or on asyncio
with ``run(Echo(), AsyncioLoop())``.
"""

from __future__ import annotations

import os
from typing import Any, cast

from gameproxy.gameserver.farm_row import Place
from gameproxy.gameserver.game import Game, Player, Refused
from gameproxy.gameserver.server import GameServer
from gameproxy.gameserver.service import GameServerService
from gameproxy.interfaces import Reactor
from gameproxy.loops import Loop

__all__ = ["Game", "GameServer", "GameServerService", "Place", "Player", "Refused", "run"]


def run(game: Game, loop: Loop | None = None, **options: Any) -> None:
    """Run a game server that a proxy has started, until it ends: by itself, or when it is asked to (SIGTERM).

    :param loop: ``None``: Twisted's reactor.
    :param options: of :class:`GameServer`: ``format``, ``own_frames``, ...
    :raises KeyError: a variable of the environment is missing.
    :raises ~gameproxy.keys.KeyFileError: the key cannot be read.
    :raises OSError: the address cannot be listened at.
    """
    if loop is None:
        from twisted.internet import reactor  # the program's own: this function is its entry point

        from gameproxy.loops.on_twisted import TwistedLoop

        loop = TwistedLoop(cast(Reactor, reactor))
    loop.log_to_stderr()
    server = GameServer(game, Place.from_environment(os.environ), loop, **options)
    loop.run(server.serve, server.drain)
