"""The moment between a game server's start and its first instruction, with real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import pytest_twisted

from gameproxy.reasons import Refusal
from tests.real.test_farm_real import Place

PROXY = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from twisted.internet import reactor
from tests.real.test_farm_real import Place
farm = Place(Path(sys.argv[1])).farm()
for server in "one", "other":
    launch = farm._keeper._starter.start(server, farm._keeper.games["chess"], lambda: None)
    print(launch.process.pid, flush=True)
reactor.run()
"""
"""A proxy that has started two game servers, and has not recorded them yet."""


def is_running(pid: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] != "Z"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("is_at_home", [False, True])
async def test_killed_while_it_starts_servers(tmp_path: Path, is_at_home: bool) -> None:
    """A game server whose proxy is killed before the farm knows its process never runs, though others were started
    after it: nobody could find it. Nor when the proxy runs in its configuration's folder, where Twisted starts
    processes by another call."""
    place = Place(tmp_path)
    arguments = [sys.executable, "-c", PROXY, str(tmp_path), str(Path.cwd()), *sys.path]
    folder = tmp_path if is_at_home else None
    proxy = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert proxy.stdout is not None
        pids = [int(proxy.stdout.readline()) for _ in range(2)]
        assert all(map(is_running, pids))
    finally:
        proxy.kill()
        proxy.communicate()
    await place.until(lambda: not any(map(is_running, pids)))
    assert not (tmp_path / "facts.json").exists()  # which a game server writes first
    logs = [log.read_text() for log in (tmp_path / "farm.servers").glob("*.log")]
    assert [log.partition(":")[0] for log in logs] == ["not run", "not run"]


@pytest_twisted.ensureDeferred
async def test_nothing_else_is_inherited(tmp_path: Path) -> None:
    """A game server has its input and its output, and nothing of how it was started."""
    shown = "import os; print(len(os.listdir('/proc/self/fd')))"  # with the folder's own
    place = Place(tmp_path)
    farm = place.farm(command=[sys.executable, "-c", shown], start_attempts=1)
    await farm.start()
    with pytest.raises(Refusal):
        await place.acquire(farm)
    (log,) = (tmp_path / "farm.servers").glob("*.log")
    assert log.read_text() == "4\n"
    await farm.stop()
