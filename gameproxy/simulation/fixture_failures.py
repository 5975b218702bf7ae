"""What is left of simulated tests that fail: traces and timelines, where pytest has its temporary files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import pytest

from gameproxy.simulation.stage import WorldFailed
from gameproxy.simulation.timeline import Heading, page
from gameproxy.simulation.world import Simulation

FAILURES_MAX: Final = 10
"""Tests of which anything is written: who has more failures begins with the first."""
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_NAME_MAX: Final = 60


class Failures:
    """The failures of one run of pytest.

    :param factory: makes folders for them, which pytest removes some runs later.
    """

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._count = 0

    def write(
        self, test: str, again: str, worlds: Sequence[Simulation], error: BaseException | None
    ) -> list[str]:
        """Write what happened in a test's worlds.

        :param test: its name.
        :param again: the command that has it again.
        :param error: what it failed with, which a world need not have seen.
        :return: lines that say where it is.
        """
        self._count += 1
        if self._count > FAILURES_MAX:
            return [f"timeline: not written, as {FAILURES_MAX} tests had failed before"]
        if error is not None and not isinstance(error, WorldFailed):
            first, _, _ = str(error).partition("\n")
            worlds[-1].write("failure", type(error).__name__, *first.split())
        try:
            return list(self._written(test, again, worlds))
        except OSError as problem:
            return [f"timeline: not written: {problem.strerror}"]

    def _written(self, test: str, again: str, worlds: Sequence[Simulation]) -> Iterable[str]:
        folder = self._factory.mktemp(_NOT_IN_NAMES.sub("-", test)[:_NAME_MAX])
        for number, world in enumerate(worlds, 1):
            name = "failure" if len(worlds) == 1 else f"failure-{number}"
            lines = world.kernel.trace.lines()
            trace, timeline = folder / f"{name}.trace", folder / f"{name}.html"
            _write(trace, "".join(lines))
            facts = [f"seed {world.seed}", f"world {number} of {len(worlds)}"]
            heading = Heading(test, facts[: len(worlds)], [("again", again)])
            _write(timeline, page(heading, lines))
            yield f"timeline: {timeline}"
            yield f"trace: {trace}"


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8", errors="backslashreplace")
