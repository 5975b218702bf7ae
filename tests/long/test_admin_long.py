"""The admin API, asked for long: what tests/real/test_admin_site.py has in short."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.real.test_admin_site import ask, site

SECONDS = float(os.environ.get("API_SECONDS", "30"))
"""For how long it is asked at least."""


@pytest.mark.timeout(SECONDS + 240)
@pytest_twisted.ensureDeferred
async def test_asked_for_long(tmp_path: Path) -> None:
    """With one seed after another schemathesis makes up requests at the same proxy, in which ever more has been done:
    all are answered as the description says."""
    async with site(tmp_path) as url:
        until, seed = reactor.seconds() + SECONDS, 0
        while seed == 0 or reactor.seconds() < until:
            seed += 1
            await ask(url, tmp_path, seed)
    print(f"asked with {seed} seeds")
