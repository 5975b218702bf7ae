"""The languages of the example programs: which can run here, and how."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "docs" / "examples"

needs_node = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("sqlite3")),
    reason="node or the program sqlite3 is not installed",
)
needs_godot = pytest.mark.skipif(
    not (shutil.which("godot3-server") and shutil.which("sqlite3")),
    reason="Debian's godot3-server, or the program sqlite3, is not installed",
)
EVERY_LANGUAGE = [
    pytest.param("node", marks=needs_node),
    pytest.param("godot", marks=needs_godot),
]


def command(folder: Path, language: str, name: str) -> list[str]:
    """What runs the program of this name in a language's folder beneath another."""
    if language == "node":
        return [shutil.which("node") or "", str(folder / "node" / f"{name}.js")]
    script = str(folder / "godot" / f"{name}.gd")
    return [shutil.which("godot3-server") or "", "--no-window", "-s", script]
