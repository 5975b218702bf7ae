"""Clients that are silent, and those that are gone: which is which shows after a minute and a half."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.real.crowd import Town, Visitor, together, until
from tests.real.ghosts import KINDS, Cable, GhostTown
from tests.real.streams import pause

LONGEST = 95.0
"""Seconds in which the proxy notices by itself that a client is gone: 90, and what a busy machine takes."""
SESSIONS = 5000


@pytest.mark.timeout(200)
@pytest_twisted.ensureDeferred
async def test_noticed_without_being_asked(tmp_path: Path) -> None:
    """The session of a client that is gone ends by itself, with ``client_lost``, whether nothing is on its way to the
    client, or something, or more than there is room for."""
    with Cable() as cable:
        async with GhostTown(tmp_path, cable, "capacity = 20\nmax_servers = 1") as town:
            began = reactor.seconds()
            for kind in KINDS:
                await town.haunt(kind, kind)
            cable.pull()
            nothing, _, much = sorted(town.unacknowledged())  # of who talks something, mostly
            assert (nothing, much > 0) == (0, True)
            await until(lambda: town.sums() == (0, 0, 0), LONGEST)
            assert reactor.seconds() - began > 30.0
            assert [town.ends(kind) for kind in KINDS] == [["client_lost"]] * len(KINDS)


@pytest.mark.timeout(400)
@pytest_twisted.ensureDeferred
async def test_thousands_are_silent(tmp_path: Path) -> None:
    """Of thousands of clients that fall silent at the same time, for long, none is taken for gone; nor are so many
    asked in one moment that the network drops the questions (4,000 of them when all had the same idle time)."""
    game = f"capacity = {SESSIONS}\nmax_servers = 1"
    with descriptors(SESSIONS + 1000):
        async with Town(tmp_path, game, proxies=1) as town:
            visitors: list[Visitor] = []
            for first in range(0, SESSIONS, 50):
                some = range(first, min(first + 50, SESSIONS))
                visitors += await together(town.join(f"p{number}") for number in some)
            await town.settled(SESSIONS)
            await together(visitor.echo(b"\x10the last") for visitor in visitors)
            before = dropped()
            await pause(150.0)
            assert dropped() - before < SESSIONS / 10
            assert not any(visitor.over for visitor in visitors)
            await town.settled(SESSIONS)
            for visitor in visitors:
                visitor.reset()
            await town.settled(0)


def dropped() -> int:
    """How many packets did not find room in a processor's queue: the second column of ``/proc/net/softnet_stat``."""
    rows = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(row.split()[1], 16) for row in rows)


@contextmanager
def descriptors(number: int) -> Iterator[None]:
    """Let this process have so many; what it starts, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
