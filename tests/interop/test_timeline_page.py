"""The scripts of a timeline's page, run by node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from languages import needs_node

from gameproxy.simulation.runs import Run, drawn, play
from gameproxy.simulation.timeline import timeline

HERE = Path(__file__).parent


def shown(folder: Path, run: Run, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the page of a run shows, with some lines more at its end."""
    result = play(run, keep_trace=True)
    last = result.lines[-1].split()[0]
    lines = [*result.lines, *(f"{last} {line}\n" for line in more)]
    page = folder / "run.html"
    page.write_text(timeline(run, lines, result.sha256))
    script = HERE / "node" / "timeline_page.js"
    done = subprocess.run(
        ["node", str(script), str(page)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs_node
def test_picture(tmp_path: Path) -> None:
    """The picture names all lanes, the faults, and where it failed; the mouse is told what is below it, its click keeps
    the lines of a client, its wheel zooms, and clients can be chosen."""
    run = drawn(4, "churn", clients=12)
    found = shown(tmp_path, run, ("failure something",))
    names = {f"client {number}" for number in range(12)}
    assert names <= set(found["whole"])
    assert {"database", "proxy0"} <= set(found["whole"])
    assert any(fault.kind in found["whole"] for fault in run.faults)
    assert any("FAILED" in words for words in found["whole"])
    assert found["told"].startswith("client 0: playing (on echo-")
    assert any(" welcome 0 echo-" in line for line in found["kept"])
    assert found["span"] < 1_000_000
    assert names & set(found["filtered"]) == {"client 1", "client 3", "client 4"}
    assert "slots taken" in found["farm"]


@needs_node
@pytest.mark.parametrize("clients", [1, 150])
def test_sizes(tmp_path: Path, clients: int) -> None:
    """Few clients and many are drawn alike."""
    found = shown(tmp_path, Run(1, clients=clients))
    assert "client 0" in found["first"]
    assert not any("FAILED" in words for words in found["whole"])
