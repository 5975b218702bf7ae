"""What users of other proxies complain of, where it has to do with game servers that come and go; test_restart.py has
the restarts. Real processes, sockets and database."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.commands import run
from tests.real.crowd import Town, together, until
from tests.real.streams import auth


async def does(town: Town, *arguments: str) -> None:
    """A command, which must succeed."""
    file = town.folder / "gameproxy.toml"
    status, _, errors = await deferToThread(run, *arguments, "--config", str(file))
    assert status == 0, errors


def edit(town: Town, old: str, new: str) -> None:
    """Change the configuration."""
    file = town.folder / "gameproxy.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest_twisted.ensureDeferred
async def test_scale_down_under_live_players(short_path: Path) -> None:
    """Scale-down under live players: not here. Of game servers that are no longer needed those end on which nobody is;
    not one with a player, whether it is drained, there may be fewer, or its game is gone from the configuration. It
    ends when he has left."""
    game = "capacity = 1\nmax_servers = 3\nstop_when_idle = 1.0\nstop_grace = 1.0"
    async with Town(short_path, game, proxies=1) as town:
        ann, *others = await together(town.join(name) for name in ("ann", "bob", "eve"))
        (mine,) = town.query("SELECT server FROM slots WHERE player = 'guest:ann'")[0]

        async def only_mine_is_left(state: str) -> None:
            """All others have ended, for the reason that would end this one if he were not on it."""
            await until(lambda: town.query(LIVING) == [(mine, state)])
            await ann.echo(b"\x10still here")

        for other in others:
            other.say_close()
        await only_mine_is_left("ready")
        await does(town, "farm", "drain", mine)
        (await town.join("fay")).say_close()
        await only_mine_is_left("draining")
        edit(town, "max_servers = 3", "max_servers = 1")
        await does(town, "reload")
        edit(town, 'name = "crowd"', 'name = "other"')
        await does(town, "reload")
        (await town.join("gil")).say_close()
        await only_mine_is_left("draining")
        assert [one["server"] for one in town.events("asked to stop")].count(mine) == 0
        edit(town, 'name = "other"', 'name = "crowd"')
        await does(town, "reload")
        ann.say_close()
        await until(lambda: town.query(LIVING) == [])


LIVING = "SELECT id, state FROM game_servers WHERE state <> 'closed'"


@pytest_twisted.ensureDeferred
async def test_leaked_rows_in_the_registry(short_path: Path) -> None:
    """Leaked rows in the registry: not here. When clients, game servers and proxies have died in any way, and listed
    servers have gone from the configuration, no row is left of any of them that counts for something, nor a file."""
    game = "capacity = 4\nmax_servers = 4\nmin_ready = 1\nstop_grace = 1.0"
    listed = (
        "[[servers]]\nid = 's{0}'\ngame = 'elsewhere'\nhost = '127.0.0.1'\nport = 1\ncapacity = 1\n"
    )
    async with Town(short_path, game) as town:
        file = short_path / "gameproxy.toml"
        before = file.read_text()
        file.write_text(before + listed.format(1) + listed.format(2))
        await does(town, "reload")
        visitors = [await town.connect(n % 2) for n in range(8)]
        for number, visitor in enumerate(visitors):
            visitor.send(auth(name=f"player{number}", game="crowd"))
        await together(visitor.welcomed() for visitor in visitors)
        dying = town.query("SELECT id, pid FROM game_servers WHERE connections > 0 ORDER BY id")
        assert len(dying) >= 2
        for visitor in visitors[:2]:
            visitor.reset()
        os.kill(dying[0][1], signal.SIGKILL)
        town.ports.pop(0)
        await town.proxies.pop(0).end("KILL")
        file.write_text(before + listed.format(2))
        await does(town, "reload")
        for visitor in visitors[2:]:
            with suppress(Exception):
                visitor.say_close()
        await town.add_proxy()
        living = {str(proxy.transport.pid) for proxy in town.proxies}

        def settled() -> bool:
            rows: list[Any] = town.query("SELECT pid FROM proxies ORDER BY pid")
            processes = town.query(
                "SELECT id, pid FROM game_servers WHERE origin = 'started' AND state <> 'closed'"
            )
            return (
                {str(pid) for (pid,) in rows} == living
                and town.query("SELECT * FROM slots") == []
                and town.sums()[:2] == (0, 0)
                and all(Path("/proc", str(pid)).exists() for _, pid in processes)
                and dying[0][0] not in dict(processes)
                and keys() == {id for id, _ in processes}
                and Counter(town.query("SELECT id, state FROM game_servers WHERE id LIKE 's_'"))
                == Counter([("s1", "closed"), ("s2", "ready")])
            )

        def keys() -> set[str]:
            return {key.stem for key in (short_path / "farm.servers").glob("*.key")}

        await until(settled)
        reserved, connections, balance = town.sums()
        assert (reserved, connections, balance) == (0, 0, 0)
