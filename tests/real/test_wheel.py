"""What is installed from a wheel, away from the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

SOURCE = Path(__file__).parents[2]


def run(*command: str | Path, folder: Path) -> str:
    """Run a program that must succeed, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel(tmp_path: Path) -> None:
    """An installed wheel has the command, the plugin for twist, and the farm's tables."""
    source = tmp_path / "source"
    run("git", "clone", "--quiet", SOURCE, source, folder=tmp_path)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    run(*pip, *build, source, folder=tmp_path)
    (wheel,) = tmp_path.glob("gameproxy-*.whl")
    where = tmp_path / "venv"
    venv.create(where, with_pip=False, symlinks=True)
    python = where / "bin" / "python"
    scheme = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path
    )
    # What it depends on is borrowed; a .pth file there, as of an editable install, is not read.
    Path(scheme.strip(), "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(*pip, "--python", python, "install", "--quiet", "--no-deps", wheel, folder=tmp_path)
    place = run(python, "-c", "import gameproxy; print(gameproxy.__file__)", folder=tmp_path)
    assert place.startswith(str(where))
    assert "gameproxy" in run(python, "-m", "twisted", "--help", folder=tmp_path)
    assert "--config" in run(python, "-m", "twisted", "gameproxy", "--help", folder=tmp_path)
    assert "demo" in run(where / "bin" / "gameproxy", "--help", folder=tmp_path)
    tables = "from gameproxy.farm.upgrades import SCHEMA_VERSION; print(SCHEMA_VERSION)"
    assert int(run(python, "-c", tables, folder=tmp_path)) >= 1
