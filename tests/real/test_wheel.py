"""What is in the distributions, and what is installed from a wheel, away from the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2]
ONLY_IN_GIT = {".ci/run", ".gitignore"}
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
BUILD = (*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir")


def run(*command: str | Path, folder: Path) -> str:
    """Run a program that must succeed, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Distributions:
    """What was built of a clone.

    :param in_git: the files of the clone, and what is in each.
    :param sdist: the same of the source distribution.
    :param wheel: the wheel made of the source distribution.
    :param direct_wheel: the wheel made of the clone.
    """

    in_git: dict[str, bytes]
    sdist: dict[str, bytes]
    wheel: Path
    direct_wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    folder = tmp_path_factory.mktemp("distributions")
    clone = folder / "clone"
    run("git", "clone", "--quiet", SOURCE, clone, folder=folder)
    names = run("git", "ls-files", folder=clone).splitlines()
    in_git = {name: (clone / name).read_bytes() for name in names}
    # What lies about where somebody has worked does not get in.
    for litter in ("tests/unit/__pycache__/x.pyc", "docs/_build/x.html", "tests/node_modules/x.js"):
        (clone / litter).parent.mkdir(parents=True, exist_ok=True)
        (clone / litter).touch()
    make = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    run(sys.executable, "-c", make, folder=clone)
    with tarfile.open(next(folder.glob("gameproxy-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.glob("gameproxy-*") if path.is_dir())
    sdist = {
        str(path.relative_to(unpacked)): path.read_bytes()
        for path in unpacked.rglob("*")
        if path.is_file()
    }
    wheels = []
    for name, source in (("wheel", unpacked), ("direct", clone)):
        run(*BUILD, folder / name, source, folder=folder)
        wheels.extend((folder / name).glob("gameproxy-*.whl"))
    return Distributions(in_git, sdist, *wheels)


def files_of(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_source_distribution(built: Distributions) -> None:
    """It has what is in git, the tests and documents too, and besides only what describes it."""
    wanted = {name: data for name, data in built.in_git.items() if name not in ONLY_IN_GIT}
    found = {
        name: data
        for name, data in built.sdist.items()
        if name != "PKG-INFO" and not name.startswith("gameproxy.egg-info/")
    }
    assert found.keys() == wanted.keys()
    del found["setup.cfg"], wanted["setup.cfg"]  # to which setuptools adds a section
    assert found == wanted


def test_contents(built: Distributions) -> None:
    """A wheel has the package with all its files, the plugin, what to install it with, and no more, whatever it was
    made of."""
    files = files_of(built.wheel)
    described = {name for name in files if ".dist-info/" in name}
    plugin = "twisted/plugins/gameproxy_plugin.py"
    shared = {name for name in files if ".data/data/share/gameproxy/" in name}
    assert files.keys() - described - shared == {plugin} | {
        name
        for name in built.in_git
        if name.startswith("gameproxy/") and "/newsfragments/" not in name
    }
    assert {name.rpartition("/")[2]: files[name] for name in shared} == {
        name.removeprefix("etc/"): data
        for name, data in built.in_git.items()
        if name.startswith("etc/") and name != "etc/Dockerfile"
    }
    assert {name.rpartition(".dist-info/")[2] for name in described} == {
        *("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt"),
        "licenses/LICENSE",
    }
    assert files == files_of(built.direct_wheel)


def test_metadata(built: Distributions) -> None:
    """It says what it is, under which licence and for which Pythons, and names its extras."""
    (name,) = (name for name in files_of(built.wheel) if name.endswith("/METADATA"))
    metadata = BytesParser().parsebytes(files_of(built.wheel)[name])
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Summary"]
    assert metadata["Keywords"]
    assert set(metadata.get_all("Provides-Extra", [])) == {"arena", "test", "docs", "release"}
    pythons = [text for text in metadata.get_all("Classifier", []) if "Python :: 3." in text]
    assert [text.rpartition(" ")[2] for text in pythons] == ["3.11", "3.12", "3.13"]


def test_wheel(built: Distributions, tmp_path: Path) -> None:
    """An installed wheel has the command, the plugin for twist, the libraries, and the farm's tables."""
    where = tmp_path / "venv"
    venv.create(where, with_pip=False, symlinks=True)
    python = where / "bin" / "python"
    scheme = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path
    )
    # What it depends on is borrowed; a .pth file there, as of an editable install, is not read.
    Path(scheme.strip(), "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(*PIP, "--python", python, "install", "--quiet", "--no-deps", built.wheel, folder=tmp_path)
    place = run(python, "-c", "import gameproxy; print(gameproxy.__file__)", folder=tmp_path)
    assert place.startswith(str(where))
    assert "gameproxy" in run(python, "-m", "twisted", "--help", folder=tmp_path)
    assert "--config" in run(python, "-m", "twisted", "gameproxy", "--help", folder=tmp_path)
    command = where / "bin" / "gameproxy"
    assert "demo" in run(command, "--help", folder=tmp_path)
    assert "compdef" in run(command, "completion", "zsh", folder=tmp_path)
    libraries = "import gameproxy.gameserver, gameproxy.client, gameproxy.testing"
    run(python, "-c", libraries, folder=tmp_path)
    tables = "from gameproxy.farm.upgrades import SCHEMA_VERSION; print(SCHEMA_VERSION)"
    assert int(run(python, "-c", tables, folder=tmp_path)) >= 1
