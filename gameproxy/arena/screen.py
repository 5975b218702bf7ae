"""The arena in a terminal, for a person: needs textual, the extra ``arena``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.geometry import Size
from textual.widgets import Static

from gameproxy.arena.drawing import NAME_WIDTH, advice, draw_field, draw_scores, time_left
from gameproxy.arena.field import STANDING, STEPS_PER_SECOND
from gameproxy.arena.frames import BadFrame, Snapshot
from gameproxy.arena.sight import Sight
from gameproxy.client import (
    Client,
    End,
    ProtocolError,
    Refused,
    SendBufferFull,
    Session,
    SessionEnded,
    keep_playing,
)
from gameproxy.escaping import printable
from gameproxy.interfaces import Entropy
from gameproxy.loops import Loop
from gameproxy.loops.on_asyncio import AsyncioLoop
from gameproxy.messages import Status

ROUND_TRIP_INTERVAL: Final = 0.5
"""Seconds from one measurement of the round trip to the next: one INPUT, even if nothing is new."""
_HEADINGS: Final = {"right": 1, "down": 3, "left": 5, "up": 7, "stop": STANDING}


class ArenaScreen(App[int]):
    """The game. Its result is an exit status: 0 when the player has left, 1 when it ended otherwise.

    :param client_of: makes the client, when the event loop runs.
    :param entropy: for the pauses between attempts to connect again.
    :ivar farewell: what is to be said when the screen is gone; may be empty.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = f"""
    #title {{ height: 1; background: $primary-darken-2; }}
    #middle {{ height: 1fr; align: center middle; }}
    #field {{ width: 1fr; height: 1fr; content-align: center middle; }}
    #scores {{ width: {NAME_WIDTH + 8}; height: 1fr; padding: 0 1; }}
    #advice {{ height: 1; }}
    #keys {{ height: 1; color: $text-muted; }}
    """
    BINDINGS = [
        Binding("up,w", "run('up')", show=False),
        Binding("left,a", "run('left')", show=False),
        Binding("down,s", "run('down')", show=False),
        Binding("right,d", "run('right')", show=False),
        Binding("x", "run('stop')", show=False),
        Binding("space", "dash", show=False),
        Binding("q,ctrl+c", "leave", show=False, priority=True),
    ]

    def __init__(self, client_of: Callable[[Loop], Client], entropy: Entropy) -> None:
        super().__init__()
        self.farewell = ""
        self._client_of = client_of
        self._entropy = entropy
        self._session: Session | None = None
        self._sight: Sight | None = None
        self._drawn: tuple[Snapshot, Size] | None = None
        self._heading = STANDING
        self._nonsense = ""
        self._title = Static(id="title")
        self._field = Static("Connecting ...", id="field")
        self._scores = Static(id="scores")
        self._advice = Static(id="advice")

    def compose(self) -> ComposeResult:
        """What there is on the screen."""
        yield self._title
        with Horizontal(id="middle"):
            yield self._field
            yield self._scores
        yield self._advice
        yield Static("arrows or WASD: run   x: stop   space: dash   q: leave", id="keys")

    def on_mount(self) -> None:
        """Begin."""
        self.run_worker(self._stay())
        self.set_interval(1 / STEPS_PER_SECOND, self._draw)
        self.set_interval(ROUND_TRIP_INTERVAL, self._send)

    # What the player does

    def action_run(self, way: str) -> None:
        """Run another way from now on, or stop."""
        if self._heading != _HEADINGS[way]:
            self._heading = _HEADINGS[way]
            self._send()

    def action_dash(self) -> None:
        """Dash, if the game lets one."""
        self._send(dash=True)

    def action_leave(self) -> None:
        """Leave in good order; at once, if that is already under way or there is nothing to leave."""
        if self._session is None or self._session.ending is not None:
            self.exit(0)
        else:
            self._session.leave()
            self._advice.update("Leaving ...")

    def _send(self, dash: bool = False) -> None:
        if self._session is None or self._sight is None or self._session.ending is not None:
            return
        # What a proxy does not take is not for later: the next INPUT says all that counts.
        with suppress(SendBufferFull):
            self._session.send(self._sight.input(self._heading, dash))

    # What the game does

    async def _stay(self) -> None:
        loop = AsyncioLoop()
        status = 1
        try:
            await keep_playing(
                self._client_of(loop),
                lambda session: self._play(session, Sight(loop.seconds)),
                entropy=self._entropy,
                on_status=self._wait,
                on_pause=self._pause,
            )
            status = 0
        except SessionEnded:
            pass  # _play has said farewell
        except (Refused, ProtocolError, ValueError) as error:
            self.farewell = printable(str(error))
        self.exit(status)

    async def _play(self, session: Session, sight: Sight) -> None:
        self._session, self._sight, self._heading = session, sight, STANDING
        self.farewell = ""
        session.on_settings = lambda settings: self._believe(session, sight.settings, settings)
        session.on_frame = lambda body: self._believe(session, sight.received, body)
        ending = await session.ended
        self._session = self._sight = None
        if self._nonsense:
            raise ProtocolError(self._nonsense)
        if ending.end is not End.LEFT:
            self.farewell = printable(f"{ending.code}: {ending.message}")
            raise SessionEnded(ending)

    def _believe(self, session: Session, take: Callable[[bytes], object], data: bytes) -> None:
        try:
            take(data)
        except BadFrame as error:
            self._nonsense = f"This is not the arena: {error}."
            session.leave()

    def _wait(self, status: Status) -> None:
        place = "" if status.position is None else f", place {status.position}"
        self._say(f"{status.message}\n({status.state}{place})")

    def _pause(self, seconds: float, reason: Exception) -> None:
        self._say(f"{reason}\nTrying again in {seconds:.0f} s ...")

    def _say(self, text: str) -> None:
        """Show something in place of the field."""
        lines = [printable(line) for line in text.splitlines()]
        self._field.update(Text("\n".join(lines), justify="center"))
        self._scores.update("")

    def _draw(self) -> None:
        sight = self._sight
        session = self._session
        if session is None or sight is None or session.ending is not None:
            return
        snapshot = sight.snapshot
        if snapshot is None or (snapshot, self._field.size) == self._drawn:
            return
        self._drawn = snapshot, self._field.size
        # Their sizes are given by the screen's: nothing need be laid out again.
        self._title.update(_title(sight, session), layout=False)
        self._field.update(draw_field(sight, *self._field.size), layout=False)
        self._scores.update(draw_scores(sight, self._scores.size.height), layout=False)
        self._advice.update(advice(sight), layout=False)


def _title(sight: Sight, session: Session) -> Text:
    server = "" if session.welcome is None else printable(session.welcome.server)
    round_trip = "" if sight.round_trip is None else f"{sight.round_trip * 1000:.0f} ms"
    return Text(f"{time_left(sight)} left   {server}   round trip {round_trip}", no_wrap=True)
