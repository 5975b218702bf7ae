"""etc/: what gameproxy is installed with, as far as it can be judged without systemd or containers that run"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from gameproxy.admission import OTHER_DESCRIPTORS, REFUSED_MAX
from gameproxy.config import ProxyConfig
from gameproxy.draining import LAST_WORDS_TIME
from gameproxy.tap import Options

ROOT = Path(__file__).parents[2]
ETC = ROOT / "etc"
UNITS = ("gameproxy.service", "gameproxy.socket")
EXPOSURE_MAX = 20
"""Tenths, of the ten that systemd gives to a service that may do everything: below 20 it calls it OK."""
INSTRUCTIONS = frozenset(
    [
        "FROM",
        "RUN",
        "COPY",
        "ENV",
        "USER",
        "WORKDIR",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "ENTRYPOINT",
        "CMD",
    ]
)
systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)


def unit(name: str) -> ConfigParser:
    """A unit; of keys that stand there more than once, the last."""
    parser = ConfigParser(strict=False, interpolation=None, delimiters=["="])
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(ETC / name)
    return parser


def placed(folder: Path) -> list[str]:
    """The units with their drop-in, as they would be installed, but with programs that are there."""
    for name in UNITS:
        text = (ETC / name).read_text()
        assert name.endswith("socket") or "/opt/gameproxy/bin/" in text
        (folder / name).write_text(re.sub(r"/opt/gameproxy/bin/\S+", "/bin/true", text))
    dropin = folder / "gameproxy.service.d" / "kernel.conf"
    dropin.parent.mkdir()
    shutil.copy(ETC / "gameproxy-kernel.conf", dropin)
    return [str(folder / name) for name in UNITS]


@systemd
def test_units_are_valid(tmp_path: Path) -> None:
    """systemd has nothing to say against them."""
    command = ["systemd-analyze", "verify", "--man=no", *placed(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if "gameproxy" in line]
    assert (done.returncode, said) == (0, []), done.stderr


@systemd
@pytest.mark.parametrize("with_kernel", [False, True])
def test_exposure(tmp_path: Path, with_kernel: bool) -> None:
    """systemd judges the service to be well confined; with what the kernel relay needs to be loaded, nearly so."""
    service, _ = placed(tmp_path)
    if not with_kernel:
        shutil.rmtree(tmp_path / "gameproxy.service.d")
    threshold = EXPOSURE_MAX + 10 * with_kernel
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={threshold}"]
    done = subprocess.run(
        [*command, "--no-pager", service], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout.splitlines()[-1:]


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd is not installed")
def test_user(tmp_path: Path) -> None:
    """The user is made."""
    (tmp_path / "etc").mkdir()
    command = ["systemd-sysusers", f"--root={tmp_path}", "--inline"]
    lines = (ETC / "gameproxy.sysusers").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    passwd = (tmp_path / "etc" / "passwd").read_text()
    assert re.search(r"(?m)^gameproxy:.*:/var/lib/gameproxy:/usr/sbin/nologin$", passwd)


def test_bounds() -> None:
    """The service has the descriptors and the time to stop that the defaults need, whoever of its children lives on."""
    service = unit("gameproxy.service")["Service"]
    defaults = ProxyConfig()
    needed = 2 * (defaults.max_sessions + REFUSED_MAX) + OTHER_DESCRIPTORS
    assert int(service["LimitNOFILE"]) >= needed
    longest = defaults.drain_grace + defaults.stall_timeout + LAST_WORDS_TIME
    assert float(service["TimeoutStopSec"]) > longest + 10
    assert (service["KillMode"], service["OOMPolicy"]) == ("process", "continue")
    assert "PrivateTmp" not in service  # systemd would empty it under the game servers


def test_commands() -> None:
    """What the units and the image run is a command line of ours, with one configuration."""
    service = unit("gameproxy.service")["Service"]
    start, reload = service["ExecStart"].split(), service["ExecReload"].split()
    assert (Path(start[0]).name, Path(reload[0]).name) == ("twist", "gameproxy")
    lines = [start[1:], json.loads(dict(instructions())["CMD"])[1:]]
    for line in lines:
        where = line.index("gameproxy")
        assert line[:where] == ["--log-format=text"]
        options = Options()
        options.parseOptions(line[where + 1 :])
        assert options["config"] == "/etc/gameproxy/gameproxy.toml"
    assert reload[1:] == ["reload", "--config", "/etc/gameproxy/gameproxy.toml"]


def test_socket() -> None:
    """The port is that of the documentation, for IPv6 and IPv4."""
    section = unit("gameproxy.socket")["Socket"]
    assert (section["ListenStream"], section["BindIPv6Only"]) == ("7777", "both")
    assert "systemd:domain=INET6:index=0" in (ETC / "gameproxy.socket").read_text()
    assert "Requires" in unit("gameproxy.service")["Unit"]


def instructions() -> list[tuple[str, str]]:
    """Those of the Dockerfile, each in one line."""
    text = re.sub(r"(?m)^#.*\n", "", (ETC / "Dockerfile").read_text())
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def test_image() -> None:
    """The Dockerfile has instructions that there are, in an order that works: whoever runs it is not root, there is an
    init, and what is copied is there."""
    found = instructions()
    names = [name for name, _ in found]
    assert set(names) <= INSTRUCTIONS
    assert names[0] == "FROM" and names.count("FROM") == 2
    last = dict(found)
    init, *rest = json.loads(last["ENTRYPOINT"])
    assert (init, rest) == ("/usr/bin/tini", ["--"])
    assert names.index("USER") > max(n for n, name in enumerate(names) if name in ("RUN", "COPY"))
    installed = " ".join(value for name, value in found[names.index("FROM", 1) :] if name == "RUN")
    for needed in ("tini", "python3 ", f"useradd --system --home-dir {last['WORKDIR']}"):
        assert needed in installed
    assert last["USER"] == "gameproxy" and last["EXPOSE"] in ProxyConfig().listen[0]
    sources = [value.split()[0] for name, value in found if name == "COPY"]
    assert sources == ["dist/*.whl", "--from=build"]
