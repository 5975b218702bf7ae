"""Disturbed sites."""

from __future__ import annotations

import pytest

from gameproxy.host import Host
from gameproxy.simulation import world
from gameproxy.simulation.runs import Run, play
from gameproxy.sites import SITES

SEED = 1


def test_nothing_is_disturbed_in_production() -> None:
    """A proxy on a real machine is left alone."""
    assert not any(Host().disturbs(site) for site in SITES)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that is to be disturbed is disturbed each time."""
    monkeypatch.setattr(world, "DISTURBED", 100)


@pytest.mark.usefixtures("always")
def test_all_at_once() -> None:
    """All sites are come by and disturbed in a run, and what is there bears it."""
    result = play(Run(SEED, "crash-loop", clients=30, sites=SITES))
    assert result.failure is None, result.failure
    assert [site for site in SITES if not result.reached.get(site)] == []
    assert [site for site in SITES if not result.reached.get(f"{site}, disturbed")] == []


@pytest.mark.usefixtures("always")
def test_each_by_itself() -> None:
    """A site that is disturbed changes the run; the others are only counted."""
    usual = play(Run(SEED, "crash-loop", clients=30))
    for site in SITES:
        disturbed = play(Run(SEED, "crash-loop", clients=30, sites=(site,)))
        assert disturbed.failure is None, disturbed.failure
        names = [name for name in disturbed.reached if name.endswith(", disturbed")]
        assert names == [f"{site}, disturbed"], site
        assert disturbed.sha256 != usual.sha256, site
