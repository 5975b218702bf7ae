"""The documentation: who does what it says sees what it shows"""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted

from tests.pages import ROOT, SHORT, Reader


@pytest.mark.parametrize("page", SHORT)
@pytest_twisted.ensureDeferred
async def test_page_is_played(page: str, tmp_path: Path) -> None:
    """In order: each file is written, each command exits with 0 and prints the lines shown."""
    await Reader(tmp_path).play((ROOT / page).read_text("utf-8"))
