"""Crowds at several proxies, in full: what tests/real/test_farm_crowds.py has in short."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import pytest_twisted

from tests.real import crowd_scenes
from tests.real.crowd import Town, until
from tests.real.streams import pause

pytestmark = pytest.mark.timeout(300)


@pytest_twisted.ensureDeferred
async def test_a_thousand_at_once(tmp_path: Path) -> None:
    """A thousand clients at three proxies: each gets in once, on the 63 game servers that this needs."""
    await crowd_scenes.fill(tmp_path, 1000, 3)


@pytest.mark.parametrize("proxies", [1, 2, 3])
@pytest_twisted.ensureDeferred
async def test_leaving_in_every_phase(tmp_path: Path, proxies: int) -> None:
    """300 places with a hundred visits each, every fifth for good: no slot is lost, none is there twice."""
    await crowd_scenes.churn(tmp_path, 300, 100, proxies)


@pytest_twisted.ensureDeferred
async def test_admitted_in_order_of_arrival(tmp_path: Path) -> None:
    """A long queue at two proxies is served in its order, one by one."""
    await crowd_scenes.in_order(tmp_path, 150)


@pytest_twisted.ensureDeferred
async def test_failing_starts_back_off(tmp_path: Path) -> None:
    """Starts that fail, time and again: the next one comes after 1, 2, 4, 8 and 16 seconds, and not sooner."""
    await crowd_scenes.back_off(tmp_path, 4)


@pytest_twisted.ensureDeferred
async def test_not_stopped_under_a_player(tmp_path: Path) -> None:
    """Time and again a client asks for a slot in the moment in which the game server is about to be stopped."""
    await crowd_scenes.nearly_stopped(tmp_path, 25)


@pytest_twisted.ensureDeferred
async def test_many_times_the_same_player(tmp_path: Path) -> None:
    """A player who comes a hundred times at once has one session at the end."""
    await crowd_scenes.replaced(tmp_path, 100)


@pytest_twisted.ensureDeferred
async def test_kept_warm_and_stopped(tmp_path: Path) -> None:
    """Over two proxies: min_ready are there before anybody comes, and again when one is killed; there are never more
    than max_servers; those that are idle are stopped, but not those to be kept warm, and none with players."""
    game = "capacity = 1\nmin_ready = 2\nmax_servers = 3\nstop_when_idle = 0.5"
    async with Town(tmp_path, game) as town:
        await until(lambda: town.states() == {"ready": 2})
        ((killed, pid), _) = town.query("SELECT id, pid FROM game_servers ORDER BY id")
        os.kill(pid, signal.SIGKILL)
        await until(lambda: town.states() == {"ready": 2, "closed": 1})
        assert len(town.events("started")) == 3
        visitors = [await town.join(f"p{number}", number) for number in range(3)]
        assert len(town.events("started")) == 4
        late = await town.ask("late")
        await late.waits_at(1)
        assert set(late.told) == {("queued", 1)}
        visitors[0].say_close()
        await late.welcomed()
        assert len(town.events("started")) == 4
        for visitor in (*visitors[1:], late):
            visitor.say_close()
        await until(lambda: town.states() == {"ready": 2, "closed": 2})
        await pause(2.0)
        assert town.states() == {"ready": 2, "closed": 2}
        stopped = [
            (one["server"] != killed, one["present"]) for one in town.events("asked to stop")
        ]
        assert stopped == [(True, 0)]
        assert len(town.events("started")) == 4
