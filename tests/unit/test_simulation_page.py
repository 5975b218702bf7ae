"""docs/simulation: what is not shown by commands"""

from __future__ import annotations

import re

from gameproxy.simulation import states
from tests.pages import DOCS

PAGE = (DOCS / "simulation.md").read_text("utf-8")


def test_the_failure_shown() -> None:
    """The command that has a failure again names a test that is on the page."""
    shown = re.search(r"again: pytest '(\w+\.py)::(\w+)\[seed7\]' --simulation-seed 7", PAGE)
    assert shown is not None
    assert f"# simulation/{shown[1]}\n" in PAGE
    assert f"def {shown[2]}(simulation)" in PAGE


def test_all_states_and_keys() -> None:
    """Each state that comes with gameproxy is in the table of states, and each key of a state in that of keys."""
    assert re.findall(r"(?m)^\| `(\w+)` \| [^`]", PAGE.partition("These states")[2])
    listed = re.findall(r"(?m)^\| `([a-z_]+)` \| ", PAGE.partition("These states")[2])
    assert sorted(listed) == states.names()
    table = PAGE.partition("| section | key |")[2].partition("\n\n")[0]
    for section in (
        states.TemperState,
        states.ListedState,
        states.StartedState,
        states.BanState,
        states.ClientsState,
    ):
        for key in section.model_fields:
            assert f"`{key}`" in table, key
