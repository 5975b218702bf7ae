"""A game, and a player in it, as the game sees them."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol

from gameproxy.messages import Admit, FrameType, Kick, Notice, decode_object, encode_settings
from gameproxy.reasons import CloseReason

if TYPE_CHECKING:
    from gameproxy.gameserver.server import GameServer


class Refused(Exception):
    """Raised by :meth:`Game.admitting`: this player is not let in.

    :param code: ``full`` and ``draining`` have the proxy try another game server; anything else ends the session.
    :param message: what the player is told.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class Game:
    """A game: override what it needs, with plain methods or with ``async def``.

    What concerns one player is called in order, and one at a time: while an ``async def`` is under way, nothing more is
    read from that player. What raises is logged, and ends the session of the player concerned.
    """

    def started(self, server: GameServer) -> object:
        """The game server listens. When this is done it says that it is ready, and players come.

        What is raised here ends the game server: the farm counts a failed start.
        """

    def healthy(self) -> object:
        """Whether the game is well, asked before each heartbeat. While it is not, the farm is given no sign of life:
        after 15 s this game server is lost, and gets no more players."""
        return True

    def admitting(self, player: Player) -> object:
        """A player is about to come in. Nothing can be sent to it yet.

        :raises Refused: it is not let in.
        """
        return None

    def settings(self, player: Player) -> object:
        """The settings of the game, which the client gets before anything else; ``None``: there are none."""
        return None

    def joined(self, player: Player) -> object:
        """A player has come in."""

    def received(self, player: Player, body: bytes) -> object:
        """A frame came from a player.

        :param body: all of it, with the byte of type (0x10 or more in the dialect ``native``); may be empty.
        """

    def left(self, player: Player) -> object:
        """A player has gone. Called once for each that had joined."""

    def draining(self, server: GameServer) -> object:
        """No new players come from now on, and the game server ends when the last has left: it was asked to stop
        (SIGTERM), or has asked for it with :meth:`GameServer.drain`.

        By default it ends at once, and its players are told. Who lets them play on has as long as the proxy's
        ``stop_grace`` after SIGTERM.
        """
        server.shutdown()
        return None

    def stopped(self, server: GameServer) -> object:
        """The game server is about to end; its players have been told. Called once if :meth:`started` was."""


class Line(Protocol):
    """The connection to a player."""

    def send(self, body: bytes) -> None:
        """Send a frame of the game's."""
        ...

    def send_own(self, body: bytes) -> None:
        """Send a frame of the proxy's, where there are such."""
        ...

    def end(self) -> None:
        """End the connection when all is sent."""
        ...


class Player:
    """A player in a game. What is sent to it goes nowhere once its session has ended.

    :ivar session: the id of the session.
    :ivar name: the player's name; of guests it begins with ``guest:``.
    :ivar address: the IP that the client comes from.
    :ivar properties: what the client sent for the game.
    :ivar data: anything of the game's own.
    """

    def __init__(self, admit: Admit, line: Line) -> None:
        self.session = admit.session
        self.name = admit.player
        self.address = admit.address
        self.properties = decode_object(admit.properties.encode("utf-8"))
        self.data: Any = None
        self._line = line

    def __repr__(self) -> str:
        return f"<Player {self.name!r}, session {self.session!r}>"

    def send(self, body: bytes) -> None:
        """Send a frame.

        :raises ValueError: in the dialect ``native``, its first byte is below 0x10; or it is too large.
        """
        self._line.send(body)

    def send_settings(self, settings: bytes) -> None:
        """Send the settings of the game: any bytes, which the client gets as SETTINGS.

        :raises ValueError: they are too large.
        """
        self._line.send_own(encode_settings(settings))

    def close(self, message: str, code: str = CloseReason.LEFT) -> None:
        """End the session in good order.

        :raises ValueError: the message is too long.
        """
        self._line.send_own(Notice(code, message).encode(FrameType.CLOSE))
        self._line.end()

    def kick(self, message: str, ban_for: float | None = None) -> None:
        """Have the proxy end the session, and ban the player for so many seconds.

        :raises ValueError: the message is too long, or the time is none.
        """
        if ban_for is not None and not (isfinite(ban_for) and ban_for >= 0):
            raise ValueError("ban_for must be a number of seconds, 0 or more")
        self._line.send_own(Kick(CloseReason.KICKED, message, ban_for).encode())
