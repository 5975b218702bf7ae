"""Where ``gameproxy demo`` is shown: on a page that lives in a terminal, in a line at a time, or in a picture."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.terminal_theme import MONOKAI

from gameproxy.cli.demo_facts import ServerRow, Snapshot, in_words
from gameproxy.cli.demo_keys import Keyboard, keys_may_be_read
from gameproxy.cli.demo_page import KEYS, NO_KEYS, as_duration, as_page, as_size, rates

PICTURE_SIZE: Final = (84, 26)
"""Columns and lines of a picture."""


class View(Protocol):
    """Shows snapshots.

    :ivar interval: seconds between two of them.
    """

    interval: float

    def show(self, snapshot: Snapshot) -> None:
        """Show how it stands now.

        :raises OSError: there is nobody any more who could see it.
        """
        ...

    def close(self) -> None:
        """Nothing more is to be shown, and no key pressed. Doing it twice changes nothing."""
        ...


class Audience(Protocol):
    """Those in front of a terminal."""

    def press(self, key: str) -> None:
        """They have pressed a key."""
        ...

    def leave(self) -> object:
        """They are gone, and their terminal too."""
        ...


def view_for(
    output: TextIO, fd: int, reactor: Any, program: str, address: str, audience: Audience
) -> View:
    """What suits an output: a live page when it is a terminal.

    :param fd: the standard input: of a terminal, keys are read.
    :param reactor: provides IReactorFDSet.
    :param program: how this command was called.
    :param address: where the proxy listens.
    """
    console = Console(file=output)
    if not console.is_terminal or console.is_dumb_terminal or console.options.ascii_only:
        return LineView(output, address, join_in(program, address, "connect"))
    keyboard = None
    if keys_may_be_read(fd):
        keyboard = Keyboard(reactor, fd, audience.press, audience.leave)
    command = "play" if find_spec("textual") else "connect"  # which play needs
    return LiveView(console, address, join_in(program, address, command), keyboard)


def join_in(program: str, address: str, command: str) -> str:
    """What a person types to play too."""
    return f"{program} {command} {address} --guest you --game arena"


class LineView:
    """One plain line for each snapshot."""

    interval = 1.0

    def __init__(self, output: TextIO, address: str, join_in: str) -> None:
        self._output = output
        self._print(f"Listening on {address}. To join in: {join_in}")

    def show(self, snapshot: Snapshot) -> None:
        frames, size = rates(snapshot)
        servers = in_words(_states_of(snapshot.servers)) or "none"
        sessions = in_words(snapshot.sessions)
        total = sum(snapshot.sessions.values())
        set_up, trip = snapshot.set_up, snapshot.round_trip
        self._print(
            f"{snapshot.seconds:4.0f} s  servers: {servers}  sessions: {total}"
            + (f" ({sessions})" if sessions else "")
            + f"  {frames:.0f} frames/s {as_size(size)}/s"
            + (f"  set-up: {as_duration(set_up.median)}" if set_up else "")
            + (f"  added latency: {as_duration(trip.added)}" if trip else "")
            + f"  over: {in_words(snapshot.ended) or 'none'}"
        )

    def close(self) -> None:
        """Nothing is open."""

    def _print(self, line: str) -> None:
        print(line, file=self._output, flush=True)


class LiveView:
    """A page that is drawn anew for each snapshot, on the terminal's second screen.

    :param keyboard: to be closed with it; ``None``: no keys are read.
    """

    interval = 0.5

    def __init__(
        self, console: Console, address: str, join_in: str, keyboard: Keyboard | None
    ) -> None:
        self._console = console
        self._address = address
        self._join_in = join_in
        self._keyboard = keyboard
        self._live = Live(
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        size = (self._console.width, self._console.height)
        keys = NO_KEYS if self._keyboard is None else KEYS
        page = as_page(snapshot, size, self._address, self._join_in, keys)
        self._live.update(page, refresh=True)

    def close(self) -> None:
        if self._keyboard is not None:
            self._keyboard.close()
        with suppress(OSError):  # there is no terminal any more
            self._live.stop()


class PictureView:
    """Keeps the last snapshot before the end, and then makes an SVG of it, which needs nothing from elsewhere.

    :param program: how it is to say this command is called.
    """

    interval = 0.5

    def __init__(self, file: Path, address: str, program: str) -> None:
        self._file = file
        self._address = address
        self._join_in = join_in(program, address, "play")
        self._last: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        if not snapshot.ending:
            self._last = snapshot

    def close(self) -> None:
        if self._last is not None:
            self._file.write_text(as_picture(self._last, self._address, self._join_in), "utf-8")
            self._last = None


def as_picture(snapshot: Snapshot, address: str, join_in: str) -> str:
    """The page of a snapshot as SVG."""
    width, height = PICTURE_SIZE
    console = Console(
        file=io.StringIO(),
        record=True,
        width=width,
        height=height,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        _environ={},
    )
    console.print(as_page(snapshot, PICTURE_SIZE, address, join_in, KEYS), end="")
    return console.export_svg(
        title="gameproxy demo", theme=MONOKAI, code_format=_SVG, unique_id="demo"
    )


def program() -> str:
    """How this command was called, as short as it may be typed."""
    called = Path(sys.argv[0])
    if called.name != "gameproxy":
        return "python -m gameproxy"
    return "gameproxy" if str(called.parent) in os.get_exec_path() else str(called)


def _states_of(servers: Sequence[ServerRow]) -> dict[str, int]:
    states: dict[str, int] = {}
    for server in servers:
        states[server.state] = states.get(server.state, 0) + 1
    return states


_SVG: Final = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
