"""Crashes of proxies and game servers, short: real processes, sockets and database."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted

from tests.real import crash_scenes


@pytest_twisted.ensureDeferred
async def test_killed_and_restarted(tmp_path: Path) -> None:
    """A proxy that is killed under load has its slots back when it starts again; the game servers that it started
    print on, are the same as before, and never have more players than they have room for."""
    await crash_scenes.killed_and_restarted(tmp_path, clients=40, capacity=8, servers=6, kills=2)


@pytest_twisted.ensureDeferred
async def test_killed_beside_another(tmp_path: Path) -> None:
    """The slots and game servers of a proxy that is killed go to another one that lives."""
    await crash_scenes.killed_beside_another(tmp_path)


@pytest_twisted.ensureDeferred
async def test_believed_dead(tmp_path: Path) -> None:
    """A proxy that goes on after it was believed dead takes its sessions in again, or ends those for which there is no
    room any more; no game server ever has more players than it has room for."""
    await crash_scenes.believed_dead(tmp_path, in_time=False)


@pytest_twisted.ensureDeferred
async def test_game_server_killed(tmp_path: Path) -> None:
    """When a game server dies its sessions end with server_lost, and another one takes its place when it is needed."""
    await crash_scenes.game_server_killed(tmp_path)
