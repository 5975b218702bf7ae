"""Clients that are gone without a word block nobody: real processes, and a cable that is pulled."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from tests.real.crowd import Refused
from tests.real.ghosts import KINDS, Cable, GhostTown
from tests.real.streams import pause

GAME = "capacity = 20\nmax_servers = 1"


@pytest_twisted.ensureDeferred
async def test_ghost_sessions_that_block_a_re_login(tmp_path: Path) -> None:
    """With ``replace`` who comes again is in long before stall_timeout, although its ghost takes no CLOSE: at the same
    proxy and at another, whatever the ghost has done before."""
    with Cable() as cable:
        async with GhostTown(tmp_path, cable, GAME, proxies=2) as town:
            players = {f"{kind}{proxy}": (kind, proxy) for kind in KINDS for proxy in (0, 1)}
            for player, (kind, _) in players.items():
                await town.haunt(player, kind)
            cable.pull()
            assert max(town.unacknowledged()) > 65536, "nobody has a full buffer"
            for player, (_, proxy) in players.items():
                began = reactor.seconds()
                visitor = await town.show(town.ticket(player), proxy)
                await visitor.welcomed()
                assert reactor.seconds() - began < 6.0, "as long as stall_timeout"
                await visitor.echo(b"\x10hello")
            await town.settled(len(players))
            # They would wait for the deaf.
            await gatherResults([proxy.end("KILL") for proxy in town.proxies])


@pytest_twisted.ensureDeferred
async def test_refused_once(tmp_path: Path) -> None:
    """With ``refuse`` a ghost's player is refused, tries again after the 5 s that it is told, and is in; a player whose
    session goes on is refused each time, and that session is not disturbed. The ghosts are at another proxy."""
    with Cable() as cable:
        async with GhostTown(tmp_path, cable, GAME, 2, auth='duplicates = "refuse"') as town:
            for kind in KINDS:
                await town.haunt(kind, kind)
            ben = await town.show(town.ticket("ben"), 0)
            await ben.welcomed()
            cable.pull()
            pauses = [await refused(town, player) for player in (*KINDS, "ben")]
            assert pauses == [5.0] * 4
            await pause(5.0)
            for player in KINDS:
                await (await town.show(town.ticket(player), 1)).welcomed()
                assert town.ends(player) == ["client_lost"]
            await refused(town, "ben")
            await ben.echo(b"\x10undisturbed")
            await town.settled(4)


async def refused(town: GhostTown, player: str) -> object:
    """A player is refused at the second proxy; the seconds after which to try again."""
    visitor = await town.show(town.ticket(player), 1)
    with pytest.raises(Refused) as found:
        await visitor.welcomed()
    assert found.value.code == "already_connected"
    return found.value.error.get("retry_after")
