"""It is production code that runs in a simulated world, not a copy of it."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from gameproxy import service, session
from gameproxy.simulation.faults import Fault
from gameproxy.simulation.runs import Run, play

SOURCE: Final = Path(session.__file__).read_text()
STEPS: Final = [
    match["step"]
    for match in re.finditer(
        r"(?m)^    (?P<step>\w+\.upon\(.+\)\.to\(\w+\)\.returns\(None\))$", SOURCE
    )
]
"""The lines of session.py by which a session goes from one state to the next, with nothing else to do."""
NEVER: Final = "accepted.upon(Inputs.authenticate).to(authenticating).returns(None)"
"""That of embedders who begin with AUTH: no proxy does."""
RUN: Final = Run(9, "small-farm", clients=6, faults=(Fault(0, 0, "wrong-key"),))


@pytest.fixture(scope="module")
def usual() -> str:
    """The hash of the run."""
    result = play(RUN)
    assert result.failure is None
    return result.sha256


@pytest.mark.parametrize("step", STEPS)
def test_one_byte_of_the_session(step: str, usual: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte of session.py, by which a line is a comment, is another run, which fails."""
    with_it, without_it = f"\n    {step}\n", f"\n   #{step}\n"
    changed = SOURCE.replace(with_it, without_it)
    assert [old != new for old, new in zip(SOURCE, changed, strict=True)].count(True) == 1
    module = ModuleType("changed_session")
    exec(compile(changed, session.__file__, "exec"), module.__dict__)
    monkeypatch.setattr(service, "Session", module.Session)
    result = play(RUN)
    assert (result.sha256 == usual) is (step == NEVER)
    assert (result.failure is None) is (step == NEVER)


def test_the_same_bytes(usual: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the file is read anew changes nothing."""
    module = ModuleType("same_session")
    exec(compile(SOURCE, session.__file__, "exec"), module.__dict__)
    monkeypatch.setattr(service, "Session", module.Session)
    assert play(RUN).sha256 == usual
