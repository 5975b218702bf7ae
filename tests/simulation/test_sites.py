"""Disturbed sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from gameproxy.client_side import ClientSide
from gameproxy.farm import FarmStore, GameFarm
from gameproxy.host import Host
from gameproxy.relay.lane import Lane
from gameproxy.server_side import ServerSide
from gameproxy.simulation import world
from gameproxy.simulation.faults import Fault
from gameproxy.simulation.runs import Run, play
from gameproxy.sites import (
    AUTH_LATE_ANSWER,
    FARM_UNHEARD_CHANGE,
    KEEPER_LATE_START,
    RELAY_SMALL_BUFFERS,
    SERVER_LATE_ADMIT,
    SERVER_LATE_DIAL,
    SITES,
    STORE_ONE_AT_A_TIME,
    STORE_PAUSE,
)
from tests.simulation.zoo import ZOO, does_nothing

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


@dataclass(frozen=True)
class Trial:
    """What a site is there for.

    :param missing: the safeguard that is missed only where the site is disturbed.
    :param plant: takes it out.
    :param run: one in which all holds without it, as long as nothing is disturbed.
    """

    site: str
    missing: str
    plant: Callable[[pytest.MonkeyPatch], None]
    run: Run


TRIALS: list[Trial] = []


def faults(kind: str, count: int) -> tuple[Fault, ...]:
    """Some of a kind, one after another."""
    return tuple(Fault(number, 150_000 * (number + 1), kind) for number in range(count))


SMALL_FARM = Run(SEED, "small-farm", clients=12, faults=faults("hang-up", 16))


def trial(
    site: str, missing: str, run: Run
) -> Callable[[Callable[[pytest.MonkeyPatch], None]], None]:
    """Add a trial, with what takes the safeguard out."""

    def add(plant: Callable[[pytest.MonkeyPatch], None]) -> None:
        TRIALS.append(Trial(site, missing, plant, run))

    return add


def of_the_zoo(site: str, name: str, run: Run) -> None:
    """Add a trial with a bug of the zoo."""
    bug = next(bug for bug in ZOO if bug.name == name)
    TRIALS.append(Trial(site, bug.missing, bug.plant, run))


of_the_zoo(STORE_PAUSE, "unanswered-slot-kept", SMALL_FARM)
of_the_zoo(SERVER_LATE_DIAL, "reserved-slot-kept", SMALL_FARM)
of_the_zoo(KEEPER_LATE_START, "unanswered-slot-kept", replace(SMALL_FARM, scenario="crash-loop"))


@trial(
    STORE_ONE_AT_A_TIME,
    "What still waits when a transaction is over has the next one.",
    Run(SEED, "connect", clients=30),
)
def waits_for_another(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FarmStore, "_go_on", lambda self: setattr(self, "_running", False))


@trial(
    FARM_UNHEARD_CHANGE,
    "The upkeep looks after those who wait.",
    replace(SMALL_FARM, clients=6, faults=faults("server-stopped", 12)),
)
def nobody_looks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GameFarm, "_looked", lambda self: self._keep_warm())


@trial(
    SERVER_LATE_ADMIT,
    "An attempt that is given up ends the connection that it has made.",
    SMALL_FARM,
)
def connection_kept(patch: pytest.MonkeyPatch) -> None:
    abandon = ServerSide.abandon

    def forgets(self: ServerSide) -> None:
        if self._wire is None:
            abandon(self)

    patch.setattr(ServerSide, "abandon", forgets)


@trial(
    RELAY_SMALL_BUFFERS,
    "A side that was not read from, as the other took nothing, is read from again.",
    Run(SEED, "connect", clients=12, faults=faults("clog", 20)),
)
def never_read_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lane, "resumeProducing", does_nothing)


@trial(
    AUTH_LATE_ANSWER,
    "A client that leaves before it is known who it is has left.",
    SMALL_FARM,
)
def leaves_unheard(patch: pytest.MonkeyPatch) -> None:
    stream_ended = ClientSide.stream_ended

    def ended(self: ClientSide) -> None:
        if self.session.state != "authenticating":
            stream_ended(self)

    patch.setattr(ClientSide, "stream_ended", ended)


def test_all_have_a_trial() -> None:
    """None is there for nothing."""
    assert sorted(trial.site for trial in TRIALS) == sorted(SITES)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.site)
def test_what_it_is_for(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing safeguard makes no difference in a run, and does where the site is disturbed; with it, all holds."""
    disturbed = replace(trial.run, sites=(trial.site,))
    usual, well = outcome(trial.run), outcome(disturbed)
    assert (usual[0], well[0]) == (None, None)
    trial.plant(monkeypatch)
    assert outcome(trial.run) == usual
    assert outcome(disturbed) != well


def outcome(run: Run) -> tuple[str | None, dict[str, int]]:
    """What did not hold, and with which reasons sessions were over."""
    result = play(run)
    return result.failure, result.reasons
