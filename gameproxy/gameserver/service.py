"""A game server as a part of a Twisted application."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from gameproxy.gameserver.farm_row import Place
from gameproxy.gameserver.game import Game
from gameproxy.gameserver.server import GameServer
from gameproxy.interfaces import Reactor


class GameServerService(Service):
    """A game server inside another program: starts and stops with it.

    :param options: of :class:`GameServer`: ``format``, ``own_frames``, ...
    :ivar server: the game server.
    :ivar started: fires when it has started; fails with OSError when the address cannot be listened at.
    """

    def __init__(self, game: Game, place: Place, reactor: Reactor, **options: Any) -> None:
        from gameproxy.loops.on_twisted import TwistedLoop  # not needed on asyncio

        self.server = GameServer(game, place, TwistedLoop(reactor), **options)
        self.started: Deferred[None] = Deferred()

    def startService(self) -> None:
        """Listen, then say so to the farm."""
        super().startService()
        Deferred.fromCoroutine(self.server.start()).chainDeferred(self.started)

    def stopService(self) -> Deferred[None]:
        """Let nobody in any more, tell the players, and take leave of the farm."""
        super().stopService()
        return Deferred.fromCoroutine(self.server.stop())
