"""``gameproxy demo``: a proxy, a farm with started game servers, and bots that play, all at once."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.error import ReactorNotRunning
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    globalLogBeginner,
)

from gameproxy.cli.demo_facts import Snapshot, in_words
from gameproxy.cli.demo_run import BOTS_MAX, Demo
from gameproxy.cli.demo_view import Audience, PictureView, View, program, view_for
from gameproxy.cli.running import ProgramReactor, run_reactor
from gameproxy.cli.terminal import printable

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers

BOTS: Final = 40
SEED: Final = 1
"""Of the bots' chance, if no other is asked for: each demo is like the last."""
TROUBLES_KEPT: Final = 20


def add_parser(subparsers: Subparsers) -> None:
    """Add ``demo`` to the commands."""
    parser = subparsers.add_parser(
        "demo",
        help="proxy, farm, started game servers and bots, all in one",
        description="Shows a proxy at work: it starts game servers of a small game, the arena, for bots that come and"
        " go, and stops them when they are idle. All is in a temporary folder and listens on this machine alone."
        " Keys kill and drain game servers, and add bots; the last line says which.",
        epilog="Exit status: 0, or 1 when something went wrong that nobody had asked for; it is told at the end.",
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        type=_seconds,
        metavar="SECONDS",
        help="end after so long (default: at Ctrl-C)",
    )
    parser.add_argument(
        "--bots",
        type=_bots,
        default=BOTS,
        metavar="COUNT",
        help=f"how many bots there are at high tide, {BOTS_MAX} at most (default: {BOTS})",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=SEED,
        metavar="NUMBER",
        help=f"have the bots take other chances (default: {SEED})",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show a proxy at work: 0; or, when something went wrong, say that: 1."""
    troubles = Troubles()
    troubles.watch_log()
    with TemporaryDirectory(prefix="gameproxy-demo-") as folder:
        status = run_reactor(partial(_main, Path(folder), args, troubles))
    return 1 if troubles.tell() else status


async def _main(
    folder: Path, args: argparse.Namespace, troubles: Troubles, reactor: ProgramReactor
) -> int:
    chance = Random(args.seed).randbytes  # noqa: S311 - the bots are to be alike, not safe
    view = partial(_view, args, reactor)
    demo = Demo(reactor, folder, view, chance, troubles.add, args.bots)
    reactor.addSystemEventTrigger("before", "shutdown", demo.end)
    with _when_terminal_closes(partial(reactor.callFromThread, demo.end)):
        last = await demo.run(args.seconds)
    with suppress(OSError):  # nobody is there to read it
        print(summary(last), flush=True)
    return 0


def _view(
    args: argparse.Namespace, reactor: ProgramReactor, address: str, audience: Audience
) -> View:
    if args.picture is not None:
        return PictureView(args.picture, address, program())
    return view_for(sys.stdout, 0, reactor, program(), address, audience)


@contextmanager
def _when_terminal_closes(call: Callable[[], object]) -> Iterator[None]:
    """Call something at SIGHUP, at which nothing must be left behind; unless it is ignored, as by nohup."""
    before = signal.getsignal(signal.SIGHUP)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: call())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


class Troubles:
    """Keeps what goes wrong until it can be told: a live view has the terminal."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._more = 0

    def add(self, text: str) -> None:
        """Something went wrong.

        :param text: may be of several lines, and hold what a terminal would obey.
        """
        if len(self._texts) < TROUBLES_KEPT:
            self._texts.append(text)
        else:
            self._more += 1

    def watch_log(self) -> None:
        """Errors that are logged are troubles; nothing else that is logged is shown."""
        only_errors = LogLevelFilterPredicate(LogLevel.error)
        observer = FilteringLogObserver(cast(ILogObserver, self._logged), [only_errors])
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)

    def tell(self) -> bool:
        """Say on standard error what went wrong; whether there was anything."""
        with suppress(OSError):  # nobody is there to read it
            for text in self._texts:
                first, *rest = text.splitlines() or [""]
                print(printable(f"Trouble: {first}"), file=sys.stderr)
                for line in rest:
                    print(printable(line), file=sys.stderr)
            if self._more:
                print(f"... and {self._more} more.", file=sys.stderr)
        return bool(self._texts)

    def _logged(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is not None and failure.check(ReactorNotRunning):
            return  # Ctrl-C once more while it ends
        self.add(eventAsText(event, includeTimestamp=False, includeSystem=False))


def summary(last: Snapshot) -> str:
    """What came of a demo."""
    traffic = last.traffic
    return (
        f"Done in {last.seconds:.0f} s: {sum(last.ended.values())} sessions"
        f" ({in_words(last.ended) or 'none'}),"
        f" {traffic.client_frames} frames from players, {traffic.server_frames} to them."
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (math.isfinite(seconds) and seconds > 0):
        raise argparse.ArgumentTypeError("must be a number of seconds, more than 0")
    return seconds


def _bots(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= BOTS_MAX):
        raise argparse.ArgumentTypeError(f"must be 1 to {BOTS_MAX}")
    return int(text)
