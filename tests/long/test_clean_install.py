"""The wheel in a clean environment, with nothing but what it asks the package index for."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2]


def run(*command: str | Path, folder: Path) -> str:
    """Run a program that must succeed, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_clean_install(tmp_path: Path) -> None:
    """All that it imports is among what it asks for; the demo runs, twist knows it, and its libraries are there."""
    clone, where = tmp_path / "clone", tmp_path / "venv"
    run("git", "clone", "--quiet", SOURCE, clone, folder=tmp_path)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, clone, folder=tmp_path)
    (wheel,) = tmp_path.glob("gameproxy-*.whl")
    venv.create(where, with_pip=True, symlinks=True)
    python, bin_folder = where / "bin" / "python", where / "bin"
    own_pip = (python, "-m", "pip", "--disable-pip-version-check")
    run(*own_pip, "install", "--quiet", wheel, folder=tmp_path)
    run(*own_pip, "check", folder=tmp_path)
    installed = run(*own_pip, "list", folder=tmp_path)
    assert "textual" not in installed
    assert "pytest" not in installed
    run(bin_folder / "gameproxy", "demo", "--for", "3", folder=tmp_path)
    assert "--config" in run(bin_folder / "twist", "gameproxy", "--help", folder=tmp_path)
    run(python, "-c", "import gameproxy.gameserver, gameproxy.client", folder=tmp_path)
    run(python, "-c", "import gameproxy.testing, gameproxy.service", folder=tmp_path)
    run(*own_pip, "install", "--quiet", f"{wheel}[arena]", folder=tmp_path)
    run(python, "-c", "import gameproxy.arena.screen", folder=tmp_path)
