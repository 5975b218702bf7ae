"""A run: all that makes it what it is, and what came of it."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Final

from gameproxy.simulation.chance import stream
from gameproxy.simulation.faults import Fault, draw, schedule
from gameproxy.simulation.world import Simulation, SimulationFailed
from gameproxy.sites import SITES

SCENARIOS: Final = "gameproxy.simulation.scenarios"
FAULT_SPAN: Final = 10.0
"""Seconds from the beginning in which faults happen, if a scenario names no others."""
SITES_DRAWN: Final = 25
"""Of 100 sites, how many a run has disturbed."""


@dataclass(frozen=True, slots=True)
class Run:
    """What makes a run.

    :param scenario: the name of one that is here, or the path of a file.
    :param clients: how many the scenario is to have.
    :param left_out: the numbers of those that never come.
    :param faults: what goes wrong.
    :param sites: which sites of production code are disturbed, of :data:`gameproxy.sites.SITES`.
    :param frames_max: how many frames clients send at most; ``None``: as many as they like.
    """

    seed: int
    scenario: str = "connect"
    clients: int = 50
    faults: tuple[Fault, ...] = ()
    left_out: frozenset[int] = frozenset()
    proxies: int = 1
    sites: tuple[str, ...] = ()
    frames_max: int | None = None
    virtual_budget: float = 7200.0
    wall_budget: float = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run.

    :param failure: what did not hold; ``None``: all did.
    :param sha256: of the trace, in hexadecimal.
    :param reached: how often each fault did something.
    :param lines: the trace, if it was kept.
    """

    run: Run
    failure: str | None
    sha256: str
    events: int
    virtual: float
    wall: float
    reached: dict[str, int]
    reasons: dict[str, int]
    lines: list[str] = field(default_factory=list, repr=False)


def drawn(
    seed: int, scenario: str = "connect", clients: int = 50, faults: int = 8, proxies: int = 1
) -> Run:
    """A run whose faults and disturbed sites are drawn from its seed."""
    chance = stream(seed, "sites")
    sites = tuple(site for site in SITES if chance.randrange(100) < SITES_DRAWN)
    span: float = getattr(module_of(scenario), "FAULT_SPAN", FAULT_SPAN)
    drawn = tuple(draw(seed, faults, span))
    return Run(seed, scenario, clients, drawn, proxies=proxies, sites=sites if faults else ())


def command(run: Run) -> str | None:
    """What has a run again; ``None``: only its file does, because its faults were not drawn from its seed."""
    if run != drawn(run.seed, run.scenario, run.clients, len(run.faults), run.proxies):
        return None
    words = f"gameproxy sim run --seed {run.seed} --scenario {shlex.quote(run.scenario)}"
    words += f" --clients {run.clients} --faults {len(run.faults)}"
    return words if run.proxies == 1 else f"{words} --proxies {run.proxies}"


def play(run: Run, keep_trace: bool = False) -> Result:
    """Have a run happen."""
    begin = time.perf_counter()
    module = module_of(run.scenario)
    scenario: Callable[[Simulation, int], object] = module.play
    configure = getattr(module, "config", None)
    failure = None
    world = Simulation(
        run.seed,
        virtual_budget=run.virtual_budget,
        wall_budget=run.wall_budget,
        keep_trace=keep_trace,
        proxies=run.proxies,
        config=configure() if configure is not None else None,
    )
    try:
        world.left_out = run.left_out
        world.frames_max = run.frames_max
        world.replay_command = command(run) or "gameproxy sim replay FILE"
        state = state_of(module)
        if state is None:
            world.start()
        else:
            world.hydrate(state)
        world.disturb(run.sites)
        schedule(world, run.faults)
        scenario(world, run.clients)
        world.settle()
    except SimulationFailed as error:
        failure = str(error)
    finally:
        world.close()
    trace = world.kernel.trace
    return Result(
        run,
        failure,
        trace.hexdigest(),
        world.kernel.events,
        world.now,
        time.perf_counter() - begin,
        world.reached,
        world.ledger.reasons,
        trace.lines() if keep_trace else [],
    )


def state_of(module: ModuleType) -> str | Path | None:
    """The state in which a scenario begins, if it has one; the path of a file is relative to the scenario's."""
    state: str | None = getattr(module, "STATE", None)
    if state is not None and state.endswith(".toml"):
        return Path(str(module.__file__)).parent / state
    return state


def module_of(scenario: str) -> ModuleType:
    """The module of a scenario: it has ``play(world, clients)``; perhaps ``config()``, that of its proxies, or
    ``STATE``, the name of a state or the path of its file; and ``FAULT_SPAN``, the seconds in which faults happen.

    :param scenario: the name of one that is here, or the path of a file.
    :raises ValueError: there is no such scenario.
    """
    path = Path(scenario)
    if path.suffix == ".py":
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise ValueError(f"{scenario} is not there")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    try:
        return importlib.import_module(f"{SCENARIOS}.{scenario.replace('-', '_')}")
    except ModuleNotFoundError:
        raise ValueError(f"there is no scenario {scenario}") from None
