"""The pytest fixtures of worlds, as a project of its own uses them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
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
        [sys.executable, "-m", *arguments, "-p", "no:cacheprovider", "-rA"],
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
    again = re.findall(r"(?m)again: (pytest .*)$", said)
    assert len(again) == 3
    for command, name in zip(again, ("seven_fails[seed7]", "wrong_count[seed0]"), strict=False):
        second = run(project, command)
        assert outcomes(second) == {f"test_{name}": "FAILED"}
        assert command in second


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
