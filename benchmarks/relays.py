"""The relays that stand side by side, and the work that they get."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine
from programs import CONFIGURATION, GAME, SERVER, Programs, Proxy

from gameproxy.cli.asking import STATUS_PATIENCE, ask
from gameproxy.config import ConfigError, parse
from gameproxy.control import control_folder

HERE = Path(__file__).resolve().parent
MOST_SESSIONS = 6000
PATIENCE = 20.0  # seconds until sessions are where they should be
PYTHON = sys.executable
GAMEPROXY = f"{PYTHON} {HERE / 'counted_proxy.py'}"

NGINX = """\
load_module {modules}/ngx_stream_module.so;
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 14000;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 14000; }}
stream {{
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    proxy_pass 127.0.0.1:{server_port};
    proxy_timeout 1h;
  }}
}}
"""


@dataclass(frozen=True)
class Workload:
    """What the sessions do.

    :param sessions: how many there are.
    :param body: bytes of a frame's body.
    :param pace: relay_load's word, ``closed`` with a window in frames, or ``paced`` with frames a second.
    :param pinned: the proxy has a core for itself, load and game server have the other; else the scheduler places all.
    """

    name: str
    sessions: int
    body: int
    pace: tuple[str, int]
    pinned: bool = False

    @property
    def is_bulk(self) -> bool:
        """Whether its rate is told in bytes."""
        return self.body > 1024


WORKLOADS = (
    Workload("64 B, 50 sessions", 50, 64, ("closed", 1)),
    Workload("64 B, 500 sessions", 500, 64, ("closed", 1)),
    Workload("bulk, 16 KiB x 4", 4, 16384, ("closed", 64)),
    Workload("500 players, 10 in, 20 out", 500, 64, ("paced", 10)),
    Workload("64 B, one session, pinned", 1, 64, ("closed", 1), pinned=True),
)


@dataclass(frozen=True)
class Kind:
    """One way to relay.

    :param relay: gameproxy's, by its name in the configuration; the others have none.
    :param missing: why it cannot be measured here, or nothing.
    """

    name: str
    command: tuple[str, ...] = ()
    template: str = ""
    relay: str = ""
    missing: Callable[[], str] = str

    @property
    def mode(self) -> str:
        return "native" if self.relay else "bare"


def nginx_modules() -> str:
    """Where nginx has its modules; empty without nginx."""
    try:
        built = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return ""
    return next((w.partition("=")[2] for w in built.split() if w.startswith("--modules-path=")), "")


def _nginx_missing() -> str:
    module = Path(nginx_modules()) / "ngx_stream_module.so"
    return "" if module.is_file() else "nginx or its stream module is not there"


def _uvloop_missing() -> str:
    return "" if find_spec("uvloop") else "uvloop is not installed"


def _refusal(relay: str) -> str:
    """Why this gameproxy's configuration does not take a relay; empty if it does."""
    text = CONFIGURATION.format(
        port=1, farm="/farm", max_sessions=1, relay=relay, server=SERVER, game=GAME, server_port=1
    )
    try:
        parse(text, HERE)
    except ConfigError as error:
        if any(place != "proxy.relay" for place, _ in error.problems):
            raise  # the rest of it must be right
        return str(error)
    return ""


def _gameproxy(relay: str) -> Kind:
    return Kind(f"gameproxy, {relay}", relay=relay, missing=lambda: _refusal(relay))


def _in_python(name: str, word: str, missing: Callable[[], str] = str) -> Kind:
    command = (PYTHON, str(HERE / "other_relays.py"), word, "{port}", "{server_port}")
    return Kind(name, command, missing=missing)


NO_PROXY = Kind("no proxy")
HAPROXY = Kind("HAProxy")
KINDS = (
    NO_PROXY,
    HAPROXY,
    Kind(
        "nginx stream",
        ("nginx", "-e", "stderr", "-p", "{folder}", "-c", "{configuration}"),
        NGINX,
        missing=_nginx_missing,
    ),
    _in_python("Twisted portforward", "portforward"),
    _in_python("asyncio, uvloop", "uvloop", _uvloop_missing),
    _in_python("Python, bare epoll", "bare"),
    _gameproxy("transport"),
    _gameproxy("epoll"),
    _gameproxy("sockmap"),
)


class Load:
    """A relay_load that has opened its sessions, and does what it is told."""

    def __init__(self, stack: ExitStack, command: Sequence[str], cores: str) -> None:
        self._process = stack.enter_context(machine.running(command, cores))
        self.pid = self._process.pid
        self.opened = self._answer()

    def go(self) -> None:
        self._say("g")

    def begin(self) -> None:
        self._say("b")
        self._line()

    def end(self) -> dict[str, Any]:
        """What it has measured since :meth:`begin`."""
        self._say("e")
        return self._answer()

    def stop(self) -> dict[str, Any]:
        """Let it close its sessions; what it has sent and got back in all its life."""
        self._say("s")
        return self._answer()

    def _say(self, letter: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(letter)
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the load has ended early")
        return line

    def _answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._line())
        return answer


@dataclass(frozen=True)
class Running:
    """One that runs; or nothing, with the game server's port in its place."""

    kind: Kind
    proxy: Proxy

    def by_relay(self) -> dict[str, int]:
        """How many sessions each of gameproxy's relays moves, as its status tells."""
        control = next(control_folder(self.proxy.database).glob("*.sock"), None)
        if control is None:
            raise SystemExit(f"{self.kind.name} has no control socket\n{self.proxy.log()}")
        answer = ask(self.proxy.database, control.stem, STATUS_PATIENCE, ask="status").answer
        assert answer
        sessions = answer["sessions"]
        assert isinstance(sessions, dict)
        return dict(sessions["by_relay"])

    def has_all(self, sessions: int) -> bool:
        """Whether gameproxy moves so many sessions by the relay that it is measured for, and none by another."""
        moved = {name: count for name, count in self.by_relay().items() if count}
        return moved == ({self.kind.relay: sessions} if sessions else {})

    def wait_for(self, sessions: int) -> None:
        """Wait until that is so, which may take a while after the sessions were opened.

        :raises SystemExit: it does not become so.
        """
        deadline = time.monotonic() + PATIENCE
        while not self.has_all(sessions):
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"{self.kind.name}: {self.by_relay()}, not {sessions}\n{self.proxy.log()}"
                )
            time.sleep(0.05)

    def counted(self) -> Counter[str]:
        """What gameproxy has counted of the sessions that are over: how many have left, and their frames."""
        file = self.proxy.folder / "relayed.json"
        if not file.exists():
            return Counter()
        told = json.loads(file.read_text())
        return Counter(left=told["reasons"].get("left", 0), **told["traffic"])

    def check_count(self, before: Counter[str], sessions: int, sent: int, back: int) -> None:
        """Sessions are over in which the load has sent and got so many frames: gameproxy must have counted them.

        :param before: what it had counted then.
        :raises SystemExit: it has not.
        """
        expected = Counter(left=sessions, client_frames=sent, server_frames=back)
        deadline = time.monotonic() + PATIENCE
        while (counted := self.counted() - before)["left"] < sessions:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        if not counted >= expected:
            raise SystemExit(
                f"{self.kind.name} has counted {dict(counted)}, not {dict(expected)}\n{self.proxy.log()}"
            )


class Relays:
    """Starts them, and gives them work.

    :param programs: on all cores.
    """

    def __init__(self, programs: Programs, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._load = machine.compile_c(HERE / "relay_load.c", folder)
        self._ports = {mode: programs.start_game_server(mode) for mode in ("bare", "native")}
        self._server_pids = [server.pid for server in programs.game_servers]

    def start(self, kind: Kind) -> Running:
        """Start one; returns when it listens."""
        programs = self._programs
        port = self._ports[kind.mode]
        name = kind.name.replace(", ", "-").replace(" ", "-")
        if kind is NO_PROXY:
            return Running(kind, Proxy(name, kind.mode, 0, port, self._folder, self._folder))
        if kind is HAPROXY or kind.relay:
            proxy = programs.start_proxy(name, kind.mode, port, MOST_SESSIONS, relay=kind.relay)
        else:
            values = {"server_port": port, "modules": nginx_modules()}
            proxy = programs.run_proxy(name, kind.mode, kind.command, kind.template, name, **values)
        return Running(kind, proxy)

    def roles(self, running: Running, load: int, own: int) -> dict[int, str]:
        """What each process is for when one of the relays has work.

        :param load: the load's pid, and ``own`` the benchmark's.
        """
        roles = dict.fromkeys(self._programs.pids, "idle")
        roles |= dict.fromkeys(self._server_pids, "server")
        return roles | {running.proxy.pid: "proxy", load: "load", own: "benchmark"}

    def place(self, running: Running, workload: Workload) -> str:
        """Place relay and game servers as the work wants it; returns the cores for the load."""
        cores = sorted(self._programs.load_core.split(","))
        everywhere = ",".join(cores)
        one, other = (cores[0], cores[-1]) if workload.pinned else (everywhere, everywhere)
        for pid in self._server_pids:
            machine.pin(pid, one)
        if running.proxy.pid:
            machine.pin(running.proxy.pid, other)
        return one

    def command(self, running: Running, workload: Workload) -> list[str]:
        """The load's command, with fresh tickets if the relay wants any."""
        proxy, (pace, amount) = running.proxy, workload.pace
        sessions = str(workload.sessions)
        lines = self._programs.auth_lines(proxy, workload.sessions)
        words = [proxy.mode, str(proxy.port), sessions, str(workload.body), pace, str(amount)]
        return [self._load, *words, *lines]
