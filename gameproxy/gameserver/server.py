"""A game server behind a proxy."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from math import inf
from typing import Any, Final

from gameproxy.framing import FORMATS, FrameFormat
from gameproxy.gameserver.connection import Connection
from gameproxy.gameserver.farm_row import FarmRow, Place
from gameproxy.gameserver.game import Game, Player
from gameproxy.gameserver.timetable import Appointment, Journal, Timetable, outcome
from gameproxy.interfaces import Entropy
from gameproxy.loops import Listener, Loop
from gameproxy.messages import RESERVED_BELOW
from gameproxy.reasons import ADVICE, CloseReason

HEARTBEAT_INTERVAL: Final = 5.0
"""Seconds between two signs of life."""
FAREWELL_TIME: Final = 2.0
"""Seconds in which players are told that this game server ends; the proxy takes one to close its side."""
SEND_BUFFER_MAX: Final = 1 << 20
"""Bytes that may wait for a player who does not take them."""
MISSING_GRACE: Final = 30.0
"""Seconds for which this game server's row may be missing: a proxy that knows it writes it again in about one."""
UNLISTED_LIFE: Final = 3600.0
"""Seconds after which a game server that the farm has given up ends though players are in."""


class GameServer:
    """Lets players in whom a proxy admits, and tells the farm that this game server is there.

    It ends by itself when it is draining and the last player has left. Of its row in the farm's database:

    - When the row does not wait for it at its start, it ends.
    - When the row says ``closed``, it lets nobody in any more.
    - When the row is missing, or the whole database, a proxy that knows this game server writes it again, and all goes
      on. When none has for 30 s, nobody will find it any more: it ends as soon as nobody is in.
    - An hour after either it ends though players are in.
    - While the database cannot be read or written, it goes on as it is.

    :param format: the frame format, that of the proxy.
    :param own_frames: whether the proxy's frames stand among the game's, as in the dialect ``native``. In the others
        all frames are the game's, there are no settings and no kicks, and a session ends with its connection.
    :param entropy: gives random bytes.
    :param send_buffer_max: bytes that may wait for a player who does not take them; more abort the connection.
    :ivar players: who is in, by session, in the order in which they came.
    :ivar port: where it listens; 0 while it does not.
    :ivar is_draining: whether nobody is let in any more.
    """

    def __init__(
        self,
        game: Game,
        place: Place,
        loop: Loop,
        *,
        format: FrameFormat = FORMATS["int32"],
        own_frames: bool = True,
        entropy: Entropy = os.urandom,
        send_buffer_max: int = SEND_BUFFER_MAX,
    ) -> None:
        self.game = game
        self.place = place
        self.loop = loop
        self.format = format
        self.own_frames = own_frames
        self.entropy = entropy
        self.send_buffer_max = send_buffer_max
        self.players: dict[str, Player] = {}
        self.port = 0
        self.is_draining = False
        self.journal = Journal(loop)
        self._capacity = place.capacity
        self._load: float | None = None
        self._timetable = Timetable(loop, self.journal)
        self._row = None if place.farm is None else FarmRow(place.farm, place.server, loop)
        self._listener: Listener | None = None
        self._connections: dict[Connection, None] = {}
        self._sessions: dict[str, Connection] = {}  # who is in, or about to come in
        self._is_open = False
        self._announced = False
        self._unlisted_for = 0.0
        self._is_reserved = False
        self._reservation: Appointment | None = None
        self._ends_when_empty = False
        self._stopping = False
        self._emptied: Any = None
        self._ended: Any = loop.txaio.create_future()

    # Its life

    async def start(self) -> None:
        """Listen, have the game start, then say so to the farm.

        :raises OSError: the address cannot be listened at.
        """
        place = self.place
        self._listener = await self.loop.listen(place.host, place.port, lambda: Connection(self))
        self.port = self._listener.port
        try:
            await outcome(self.game.started, self)
        except BaseException:
            await self._listener.close()
            raise
        if self._stopping:
            return
        self._is_open = True
        for connection in tuple(self._connections):
            connection.challenge()
        if self._row is not None:
            self._timetable.every(HEARTBEAT_INTERVAL, self._give_sign_of_life)
            await self._give_sign_of_life()

    async def stop(self) -> None:
        """Let nobody in any more, tell the players, and take leave of the farm."""
        if not self._stopping:
            self._stopping = self.is_draining = True
            try:
                await self._wind_up()
            finally:
                self.loop.txaio.resolve(self._ended)
        await self._ended

    async def serve(self) -> None:
        """All its life: done when it has ended.

        :raises OSError: the address cannot be listened at.
        """
        await self.start()
        await self._ended

    def drain(self) -> None:
        """Let nobody in any more, have the farm send nobody, and end when the last player has left. What else is to
        be done about them, :meth:`Game.draining` says. Doing it twice changes nothing."""
        if not self._ends_when_empty and not self.is_draining:
            self.is_draining = True
            self._timetable.start(self._drain)

    def shutdown(self) -> None:
        """End soon, in good order: players are told."""
        if not self._stopping:
            self._timetable.start(self.stop)

    def reserve(self, seconds: float) -> None:
        """Let nobody in for so long: the farm sends nobody, but counts on this game server.

        :param seconds: ``math.inf``: until told otherwise; 0: from now on, let players in again.
        :raises ValueError: it is no such number.
        """
        if not seconds >= 0:
            raise ValueError("seconds must be 0 or more")
        if self._reservation is not None:
            self._reservation.cancel()
            self._reservation = None
        if 0 < seconds < inf:
            self._reservation = self._timetable.call_later(seconds, lambda: self.reserve(0))
        self._is_reserved = seconds > 0
        if self._announced:
            self._timetable.start(self._tell_load)

    # What the game may use

    @property
    def capacity(self) -> int:
        """Most players at once. It may be made smaller than the farm has it, but not larger."""
        return self._capacity

    @capacity.setter
    def capacity(self, capacity: int) -> None:
        if not 0 <= capacity <= self.place.capacity:
            raise ValueError(f"capacity must be 0 to {self.place.capacity}")
        self._capacity = capacity

    @property
    def load(self) -> float | None:
        """How busy it is, from 0 to 1, told to the farm with the next heartbeat; ``None``: it is not told. Selection
        goes by the larger of this and the part of the slots that is taken."""
        return self._load

    @load.setter
    def load(self, load: float | None) -> None:
        if load is not None and not 0 <= load <= 1:
            raise ValueError("load must be 0 to 1")
        self._load = load

    def broadcast(self, body: bytes, but: Player | None = None) -> None:
        """Send a frame to all players, but perhaps one.

        :raises ValueError: as of :meth:`Player.send`.
        """
        frame = self.encode(body)
        left_out = None if but is None else but.session
        sessions = [session for session in self.players if session != left_out]
        for connection in [self._sessions[session] for session in sessions]:
            connection.write(frame)

    def find(self, name: str) -> Player | None:
        """The player of this name; of guests of one name, the one who came first."""
        return next((player for player in self.players.values() if player.name == name), None)

    def every(self, seconds: float, call: Callable[[], object]) -> Appointment:
        """Call something again and again, until the server ends or the handle's ``cancel()`` is called. It may be
        asynchronous; calls never overlap. What it raises is logged, once until it works again.

        :raises ValueError: ``seconds`` is not more than 0.
        """
        return self._timetable.every(seconds, call)

    def call_later(self, seconds: float, call: Callable[[], object]) -> Appointment:
        """Call something once, unless the server ends before, or the handle's ``cancel()`` is called.

        :raises ValueError: ``seconds`` is not 0 or more.
        """
        return self._timetable.call_later(seconds, call)

    # What connections use

    def encode(self, body: bytes) -> bytes:
        """A whole frame of the game's.

        :raises ValueError: it would be taken for one of the proxy's; or it is too large.
        """
        if self.own_frames and body and body[0] < RESERVED_BELOW:
            raise ValueError(
                f"a game's frame begins with a byte of 0x10 or more, not {body[0]:#04x}"
            )
        return self.format.encode(body)

    def connected(self, connection: Connection) -> None:
        """A connection is there. What comes before the game has started waits."""
        self._connections[connection] = None
        if self._is_open:
            connection.challenge()

    def has_session(self, session: str) -> bool:
        """Whether a session is in, or about to come in."""
        return session in self._sessions

    def why_no_room(self) -> str | None:
        """The code with which somebody has to be refused."""
        if self.is_draining:
            return "draining"
        if self._is_reserved or len(self._sessions) >= self._capacity:
            return "full"
        return None

    def expect(self, session: str, connection: Connection) -> None:
        """A session is about to come in: its place is taken."""
        self._sessions[session] = connection

    def disconnected(self, session: str | None) -> None:
        """A connection is gone, with the session that came over it."""
        if session is not None:
            del self._sessions[session]
            self.players.pop(session, None)

    def over(self, connection: Connection) -> None:
        """Nothing of the game's is left to be called for a connection that is gone."""
        self._connections.pop(connection, None)
        if self._emptied is not None and not self._connections:
            self._all_gone()
        self._end_if_empty()

    # How it ends

    async def _drain(self) -> None:
        if self._row is not None:
            self._timetable.start(self._leave_farm)  # players need not wait for the database
        if not self._is_open:
            self.shutdown()
            return
        try:
            await outcome(self.game.draining, self)
        except Exception:
            self.journal.failure("The game could not be drained: it ends.")
            self.shutdown()
        self._ends_when_empty = True
        self._end_if_empty()

    def _end_if_empty(self) -> None:
        if self._ends_when_empty and not self._connections:
            self.shutdown()

    async def _wind_up(self) -> None:
        self._timetable.clear()
        if self._listener is not None:
            await self._listener.close()
        for player in tuple(self.players.values()):
            player.close(ADVICE[CloseReason.DRAINING], CloseReason.DRAINING)
        for connection in tuple(self._connections):
            connection.abort()  # unless it is being ended: of those who are not in
        if self._connections:
            self._emptied = self.loop.txaio.create_future()
            too_long = self._timetable.call_later(FAREWELL_TIME, self._all_gone)
            await self._emptied
            too_long.cancel()
        if self._row is not None:
            await self._leave_farm()
        if self._is_open:
            try:
                await outcome(self.game.stopped, self)
            except Exception:
                self.journal.failure("The game could not be stopped in good order.")

    def _all_gone(self) -> None:
        emptied, self._emptied = self._emptied, None
        if emptied is not None:
            self.loop.txaio.resolve(emptied)

    # What the farm is told

    async def _give_sign_of_life(self) -> None:
        assert self._row is not None
        try:
            if not await outcome(self.game.healthy):
                return
        except Exception:
            self.journal.failure("The game cannot say whether it is well.")
            return
        try:
            if self._announced:
                self._heed(await self._row.beat(self._reported_load()))
                if self.is_draining:
                    await self._row.leave()
            elif not self.is_draining:
                self._announced = await self._row.announce(self.place.host, self.port)
                if not self._announced:
                    self.journal.error(
                        "The farm does not wait for game server {server}: it ends.",
                        server=self.place.server,
                    )
                    self.shutdown()
        except sqlite3.Error as error:
            # Not the end: the players play on, and the next heartbeat may get through.
            self._not_told(error)

    async def _tell_load(self) -> None:
        assert self._row is not None
        try:
            await self._row.beat(self._reported_load())
        except sqlite3.Error as error:
            self._not_told(error)

    async def _leave_farm(self) -> None:
        assert self._row is not None
        try:
            await self._row.leave()
        except sqlite3.Error as error:
            self._not_told(error)

    def _not_told(self, error: sqlite3.Error) -> None:
        self.journal.error("The farm could not be told: {error}", error=error)

    def _reported_load(self) -> float | None:
        is_smaller = self._capacity < self.place.capacity
        if self._is_reserved or (is_smaller and len(self._sessions) >= self._capacity):
            return 1.0
        return self._load

    def _heed(self, row: str | None) -> None:
        """Go by what the heartbeat has found."""
        if row == "there":
            self._unlisted_for = 0.0
            return
        self._unlisted_for += HEARTBEAT_INTERVAL
        if row == "closed":
            self.is_draining = True
        elif self._unlisted_for < MISSING_GRACE:
            return
        if not self._connections or self._unlisted_for >= UNLISTED_LIFE:
            self.journal.error(
                "The farm has no row for game server {server} any more: it ends.",
                server=self.place.server,
            )
            self.shutdown()
