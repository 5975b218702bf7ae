"""pytest fixtures of simulated and real worlds (docs/simulation, "With pytest").

Name it in the topmost ``conftest.py``::

    pytest_plugins = ["gameproxy.simulation.fixture"]
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from gameproxy.simulation.fixture_failures import Failures
    from gameproxy.simulation.stage import Stage
    from gameproxy.simulation.world import Simulation

LINES_MAX: Final = 200_000
"""Lines of its trace that a world keeps, the last ones, in case that its test fails: as many as a timeline shows."""
WORLDS_MAX: Final = 2
"""Worlds of a test that do, the last ones."""
_again = pytest.StashKey[str]()
"""The command that has a test's simulated world again."""
_made: pytest.StashKey[list[Simulation]] = pytest.StashKey()
"""A test's simulated worlds."""
_failures: pytest.StashKey[Failures] = pytest.StashKey()
"""Where those of tests that fail are written."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--simulation-seed``."""
    parser.getgroup("gameproxy").addoption(
        "--simulation-seed",
        type=int,
        metavar="N",
        help="the one seed of simulated worlds, in place of those of @pytest.mark.seeds",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add ``@pytest.mark.seeds``."""
    config.addinivalue_line(
        "markers", "seeds(count, first=0): have the test in simulated worlds of so many seeds"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have a test once for each of its seeds, and for each of both worlds if it is for both."""
    mark = metafunc.definition.get_closest_marker("seeds")
    seeds = None if mark is None else _seeds(*mark.args, **mark.kwargs)
    only: int | None = metafunc.config.getoption("--simulation-seed")
    if seeds is not None and only is not None:
        seeds = range(only, only + 1)
    if "world" in metafunc.fixturenames:
        worlds: list[tuple[str, int | None]] = [("simulated", seed) for seed in seeds or [None]]
        worlds.append(("live", None))
        names = [kind if seed is None else f"{kind}-seed{seed}" for kind, seed in worlds]
        metafunc.parametrize("world", worlds, indirect=True, ids=names)
    elif "simulation_seed" in metafunc.fixturenames and seeds is not None:
        metafunc.parametrize("simulation_seed", seeds, ids=[f"seed{seed}" for seed in seeds])


@pytest.fixture
def simulation_seed(pytestconfig: pytest.Config) -> int:
    """The seed of a test's simulated worlds."""
    seed: int | None = pytestconfig.getoption("--simulation-seed")
    return seed or 0


@pytest.fixture
def simulation(
    request: pytest.FixtureRequest, simulation_seed: int
) -> Iterator[Callable[..., Simulation]]:
    """Makes simulated worlds: takes the arguments of :class:`gameproxy.simulation.world.Simulation`, but the seed."""
    from gameproxy.simulation.world import Simulation

    def make(**options: Any) -> Simulation:
        world = Simulation(simulation_seed, **options)
        _watch(request, world)
        return world

    yield make
    for world in request.node.stash.get(_made, ()):
        world.close()


@pytest.fixture
def world(request: pytest.FixtureRequest, simulation_seed: int) -> Iterator[Stage]:
    """A world: a simulated one and then a real one, for a test that is to hold in both."""
    from gameproxy.simulation.live import Live
    from gameproxy.simulation.world import Simulation

    kind, seed = request.param
    made: Stage
    if kind == "live":
        made = Live(simulation_seed)
    else:
        seed = simulation_seed if seed is None else seed
        made = simulated = Simulation(seed)
        _watch(request, simulated)
    with made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell how to have a failure again, where the failure does not say so itself, and what happened in its worlds."""
    report = yield
    again = item.stash.get(_again, None)
    if not report.failed or again is None:
        return report
    lines = [] if again in report.longreprtext else [f"again: {again}"]
    worlds = item.stash.get(_made, [])
    if worlds:
        error = None if call.excinfo is None else call.excinfo.value
        lines += item.config.stash[_failures].write(item.name, again, worlds[-WORLDS_MAX:], error)
        del item.stash[_again]  # what its end may lead to is told by that
    if lines:
        report.sections.append(("gameproxy", "\n".join(lines)))
    return report


def _watch(request: pytest.FixtureRequest, world: Simulation) -> None:
    """Have a test's world keep what is to be told if the test fails."""
    from gameproxy.simulation.fixture_failures import Failures

    world.replay_command = _command(request.node, world.seed)
    world.kernel.trace.keep_last(LINES_MAX)
    made = request.node.stash.setdefault(_made, [])
    made.append(world)
    if len(made) > WORLDS_MAX:
        made[-WORLDS_MAX - 1].kernel.trace.keep_last(0)
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    request.config.stash.setdefault(_failures, Failures(factory))


def _seeds(count: int, first: int = 0) -> range:
    return range(first, first + count)


def _command(item: pytest.Item, seed: int) -> str:
    """The command that has this test again with this seed."""
    file = os.path.relpath(item.path, item.config.invocation_params.dir)
    _, _, name = item.nodeid.partition("::")
    command = f"pytest {shlex.quote(f'{file}::{name}')} --simulation-seed {seed}"
    item.stash[_again] = command
    return command
