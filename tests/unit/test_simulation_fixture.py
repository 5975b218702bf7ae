"""The pytest fixtures of worlds, as a project of its own uses them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from html import escape
from pathlib import Path

import pytest

TESTS = """
import pytest
from gameproxy.simulation.clients import Plan

@pytest.mark.seeds(3, first=6)
def test_seven_fails(simulation):
    sim = simulation(wall_budget=30)
    clients = sim.clients.batch(2)
    sim.assert_reached(clients, server=True)
    assert sim.seed != 7, "seven"

@pytest.mark.seeds(2)
def test_wrong_count(simulation):
    simulation(wall_budget=30).farm.assert_counts(connections=1, within=1)

folders = []

def test_without_seeds(simulation):
    sim = simulation(virtual_budget=5)
    folders.append(sim.config.folder)
    assert sim.farm.counts()["connections"] == 0
    print("seed", sim.seed)

def test_closed():
    assert not folders[0].exists()

@pytest.mark.seeds(2)
def test_worlds(world):
    print(type(world).__name__, world.seed)

def test_plain():
    assert False, "plain"
"""
FAILING = """
import pytest
from gameproxy.simulation.clients import Plan

@pytest.mark.seeds(11)
def test_all_fail(simulation):
    sim = simulation(wall_budget=30)
    assert sim.seed < 0, "<b>one\\nmore than that"

def test_z_two_of_three(simulation):
    for count in range(3):
        sim = simulation(wall_budget=30)
        sim.clients.batch(count)
        sim.run_for(1)
    sim.farm.assert_counts(connections=7)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with tests."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["gameproxy.simulation.fixture"]\n')
    folder = tmp_path / "some tests"
    folder.mkdir()
    (folder / "test_worlds.py").write_text(TESTS)
    return tmp_path


def run(project: Path, command: str) -> str:
    """What pytest says, by a command as a person gives it."""
    arguments = shlex.split(command)
    assert arguments[0] == "pytest"
    done = subprocess.run(
        [
            *(sys.executable, "-m", *arguments, "-p", "no:cacheprovider", "-rA"),
            f"--basetemp={project / 'base'}",
        ],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.stdout


def outcomes(said: str) -> dict[str, str]:
    """What came of each test."""
    lines = re.findall(r"(?m)^(PASSED|FAILED|ERROR) .*?::(\S+)", said)
    return {name: outcome for outcome, name in lines}


def test_seeds(project: Path) -> None:
    """A test is had for each of its seeds; each failure tells the one command that has it again, and that does."""
    said = run(project, "pytest")
    assert outcomes(said) == {
        "test_seven_fails[seed6]": "PASSED",
        "test_seven_fails[seed7]": "FAILED",
        "test_seven_fails[seed8]": "PASSED",
        "test_wrong_count[seed0]": "FAILED",
        "test_wrong_count[seed1]": "FAILED",
        "test_without_seeds": "PASSED",
        "test_closed": "PASSED",
        "test_worlds[simulated-seed0]": "PASSED",
        "test_worlds[simulated-seed1]": "PASSED",
        "test_worlds[live]": "PASSED",
        "test_plain": "FAILED",
    }
    again = list(dict.fromkeys(re.findall(r"(?m)again: (pytest .*)$", said)))
    assert len(again) == 3
    for command, name in zip(again, ("seven_fails[seed7]", "wrong_count[seed0]"), strict=False):
        second = run(project, command)
        assert outcomes(second) == {f"test_{name}": "FAILED"}
        assert command in second


def left_behind(said: str, kind: str) -> list[Path]:
    """The files of a kind that failures name."""
    return [Path(name) for name in re.findall(rf"(?m)^{kind}: (/.*)$", said)]


def test_what_failures_leave(project: Path) -> None:
    """A failure names, with the command that has it again, the timeline and the trace of its world, in pytest's folder
    for what is temporary. Both show what failed, and the timeline the command; what passes leaves nothing."""
    said = run(project, "pytest -k 'seven or wrong or live or plain'")
    (seven, *counts), traces = left_behind(said, "timeline"), left_behind(said, "trace")
    assert [path.with_suffix(".trace") for path in (seven, *counts)] == traces
    assert len(traces) == 3
    left = sorted(path for path in (project / "base").rglob("failure*"))
    assert left == sorted([seven, *counts, *traces])
    assert " failure AssertionError seven" in traces[0].read_text().splitlines()[-1]
    (command, *_) = re.findall(r"(?m)again: (pytest .*)$", said)
    assert escape(command) in seven.read_text()
    assert "AssertionError seven" in seven.read_text()
    assert "not within 1 s" in counts[0].read_text()
    # Beside the command: in the failure's own section.
    assert re.search(rf"again: {re.escape(command)}\ntimeline: {seven}\ntrace: {traces[0]}\n", said)


def test_failures_leave_no_more(project: Path) -> None:
    """After ten tests that failed no more is written, and of each test's worlds the last two; words of failures are no
    markup."""
    (project / "test_more.py").write_text(FAILING)
    said = run(project, "pytest test_more.py")
    assert len(left_behind(said, "timeline")) == len(left_behind(said, "trace")) == 10
    assert said.count("timeline: not written, as 10 tests had failed before\n") == 2
    page = left_behind(said, "timeline")[0].read_text()
    assert "<b>one" not in page
    assert "&lt;b&gt;one" in page
    said = run(project, "pytest test_more.py -k two_of_three")
    assert [path.name for path in left_behind(said, "trace")] == [
        "failure-1.trace",
        "failure-2.trace",
    ]
    first, second = (path.read_text() for path in left_behind(said, "trace"))
    assert first.count(" welcome ") == 1
    assert second.count(" welcome ") == 2
    assert "failure not within" not in first
    assert "failure not within" in second


def test_one_seed(project: Path) -> None:
    """That of the command line takes the place of all others, where tests name none too."""
    said = run(project, "pytest --simulation-seed 11 -k 'not plain'")
    assert outcomes(said) == {
        "test_seven_fails[seed11]": "PASSED",
        "test_wrong_count[seed11]": "FAILED",
        "test_without_seeds": "PASSED",
        "test_closed": "PASSED",
        "test_worlds[simulated-seed11]": "PASSED",
        "test_worlds[live]": "PASSED",
    }
    assert "seed 11\n" in said
    assert "Simulation 11" in said
