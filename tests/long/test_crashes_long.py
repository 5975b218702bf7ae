"""Crashes of proxies and game servers in full: a crowd, many kills, and real waits for what gives no sign of life."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted

from tests.real import crash_scenes


@pytest.mark.timeout(400)
@pytest_twisted.ensureDeferred
async def test_killed_twenty_times(tmp_path: Path) -> None:
    """A proxy that is killed twenty times under 200 sessions has its slots back each time it starts again; the game
    servers are the same all the time, and never have more players than they have room for."""
    await crash_scenes.killed_and_restarted(
        tmp_path, clients=200, capacity=16, servers=13, kills=20
    )


@pytest_twisted.ensureDeferred
async def test_believed_dead(tmp_path: Path) -> None:
    """The slots of a proxy that gives no sign of life are given back 15 s after its last by another; when it goes on it
    takes its sessions in again, or ends those for which there is no room any more."""
    await crash_scenes.believed_dead(tmp_path, in_time=True)


@pytest_twisted.ensureDeferred
async def test_game_server_silent(tmp_path: Path) -> None:
    """A game server whose heartbeats stop is lost after 15 s, and ready when they go on; no session ends of that."""
    await crash_scenes.game_server_silent(tmp_path)


@pytest_twisted.ensureDeferred
async def test_locked_for_ten_seconds(tmp_path: Path) -> None:
    """While another program locks the database for 10 s, who relays goes on and who comes is told when to try again;
    afterwards all is as before: nobody was taken for dead, and nobody lost a place on a full game server."""
    await crash_scenes.locked(tmp_path, 10.0)
