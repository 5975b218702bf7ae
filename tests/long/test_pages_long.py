"""The documentation's longer pages: who does what they say sees what they show"""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted

from tests.pages import LONG, ROOT, Reader


@pytest.mark.parametrize("page", LONG)
@pytest_twisted.ensureDeferred
async def test_page_is_played(page: str, tmp_path: Path) -> None:
    """In order: each file is written, each command exits with 0 and prints the lines shown."""
    await Reader(tmp_path).play((ROOT / page).read_text("utf-8"))
