"""The programs that a benchmark starts: gameproxy, HAProxy and game servers, and the tickets for their clients."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import jwt
import machine

HERE = Path(__file__).resolve().parent
GAME = "bench"
SERVER = "bench-1"
TICKET_LIFETIME = 240.0  # seconds
HOLD_IN_FLIGHT = 50

CONFIGURATION = """\
[proxy]
listen = ["tcp:{port}:interface=127.0.0.1:backlog=4096"]
database = "sqlite:///{farm}/farm.db"
secret_file = "{farm}/farm.secret"
max_sessions = {max_sessions}
relay = "{relay}"
sockmap_after = 0.05

[auth]
ticket_keys = [{{ id = "bench", algorithm = "HS256", file = "../ticket.key" }}]

[[servers]]
id = "{server}"
game = "{game}"
host = "127.0.0.1"
port = {server_port}
capacity = 20000
key_file = "../server.key"
"""

HAPROXY = """\
global
  nbthread 1
  maxconn 6000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
  maxconn 6000
listen bench
  bind 127.0.0.1:{port} backlog 4096
  server echo 127.0.0.1:{server_port}
"""


@dataclass(frozen=True)
class Proxy:
    """A proxy under test.

    :param mode: setup_load's word, ``native`` or ``bare``.
    :param folder: has its configuration, log and tickets.
    :param farm: the folder of its farm's database.
    """

    name: str
    mode: str
    pid: int
    port: int
    folder: Path
    farm: Path

    @property
    def database(self) -> Path:
        return self.farm / "farm.db"

    def log(self) -> str:
        """The end of what it has logged."""
        return last_lines(self.folder / "log")

    def stats(self) -> tuple[int, int, int]:
        """connections, connections_added and reserved, of all game servers in its database."""
        query = "SELECT sum(connections), sum(connections_added), sum(reserved) FROM game_servers"
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            connections, added, reserved = database.execute(query).fetchone()
        return connections, added, reserved

    def settle(self, connections: int) -> None:
        """Wait until the database says that ``connections`` sessions relay and no slot is reserved."""
        deadline = time.monotonic() + 20.0
        while True:
            now, _added, reserved = self.stats()
            if (now, reserved) == (connections, 0):
                return
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"{self.name}: {now} connections and {reserved} reserved, not {connections} and 0"
                    f"\n{self.log()}"
                )
            time.sleep(0.1)


class Tickets:
    """Makes files of AUTH lines, each with a ticket of its own for a player of its own."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._made = 0

    def write(self, folder: Path, count: int) -> str:
        """Write ``count`` lines, good from now on for TICKET_LIFETIME seconds; returns the path."""
        path = folder / "auth.lines"
        expires = int(time.time() + TICKET_LIFETIME)
        with path.open("w") as lines:
            for _ in range(count):
                self._made += 1
                claims = {
                    "sub": f"player-{self._made}",
                    "jti": f"ticket-{self._made}",
                    "aud": "gameproxy",
                    "exp": expires,
                    "game": GAME,
                }
                ticket = jwt.encode(claims, self._key, "HS256", headers={"kid": "bench"})
                auth = {"protocol": 1, "mechanism": "ticket", "ticket": ticket}
                lines.write(json.dumps(auth, separators=(",", ":")) + "\n")
        return str(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def wait_for_port(process: subprocess.Popen[str], port: int, log: Path) -> None:
    deadline = time.monotonic() + 30.0
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"not listening on port {port}:\n{last_lines(log)}")


class Programs:
    """Compiles and starts what a benchmark needs, in ``folder``, on two cores; ``stack`` ends it all.

    :param gameproxy: the command that runs the proxy, to which the path of a configuration is added.
    :param apart: proxies on one core, all else on the other; else everything may run on all cores.
    """

    def __init__(self, folder: Path, stack: ExitStack, gameproxy: str, apart: bool = True) -> None:
        self._folder = folder
        self._stack = stack
        self._gameproxy = gameproxy.split()
        cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
        if not apart:
            cores = [",".join(cores)]
        self.load_core, self.proxy_core = cores[0], cores[-1]
        self.pids: list[int] = []
        self.game_servers: list[subprocess.Popen[str]] = []
        self._load = machine.compile_c(HERE / "setup_load.c", folder)
        self._game_server = machine.compile_c(HERE / "game_server.c", folder, "-lcrypto")
        ticket_key = secrets.token_hex(32).encode()
        self._tickets = Tickets(ticket_key)
        for name, text in (
            ("ticket.key", ticket_key),
            ("server.key", secrets.token_hex(32).encode()),
        ):
            (folder / name).touch(mode=0o600)
            (folder / name).write_bytes(text)

    def start_game_server(self, mode: str) -> int:
        """Start one, ``native`` or ``bare``, on the load's core; returns its port."""
        native = (SERVER, str(self._folder / "server.key")) if mode == "native" else ()
        server = self._run([self._game_server, mode, *native])
        self.game_servers.append(server)
        assert server.stdout
        return int(server.stdout.readline())

    def end_game_servers(self) -> int:
        """End them; returns how many faults they have counted."""
        faults = 0
        for server in self.game_servers:
            assert server.stdin and server.stdout
            server.stdin.close()
            faults += json.loads(server.stdout.readline())["faults"]
        return faults

    def start_proxy(
        self,
        name: str,
        mode: str,
        server_port: int,
        max_sessions: int,
        farm: str | None = None,
        relay: str = "transport",
    ) -> Proxy:
        """Start gameproxy (``native``) or HAProxy (``bare``) on the proxies' core; returns when it listens.

        :param farm: the name of the proxy whose database it shares; without it, it has one of its own.
        :param relay: gameproxy's, by its name in the configuration.
        """
        template, command = CONFIGURATION, self._gameproxy
        if mode == "bare":
            template, command = HAPROXY, ["haproxy", "-db", "-f"]
        command = [*command, "{configuration}"]
        return self.run_proxy(
            name,
            mode,
            command,
            template,
            farm=farm or name,
            server=SERVER,
            game=GAME,
            server_port=server_port,
            max_sessions=max_sessions,
            relay=relay,
        )

    def run_proxy(
        self,
        name: str,
        mode: str,
        command: Sequence[str],
        template: str,
        farm: str,
        **values: object,
    ) -> Proxy:
        """Start a proxy on the proxies' core; returns when it listens.

        :param command: its words, in which ``{configuration}``, ``{port}`` and ``values`` stand for what they name.
        :param template: its configuration, likewise; ``{folder}`` is where it is, ``{farm}`` where its
            farm's database is.
        """
        folder = self._folder / name
        folder.mkdir()
        port = free_port()
        configuration = folder / "configuration"
        values = {**values, "farm": self._folder / farm, "folder": folder, "port": port}
        configuration.write_text(template.format(**values))
        words = [word.format(configuration=configuration, **values) for word in command]
        log = folder / "log"
        log_file = self._stack.enter_context(log.open("w"))
        process = self._stack.enter_context(machine.running(words, self.proxy_core, log_file))
        wait_for_port(process, port, log)
        self.pids.append(process.pid)
        return Proxy(name, mode, process.pid, port, folder, self._folder / farm)

    def load(
        self, proxy: Proxy, in_flight: int, what: str, amount: float, tickets: int
    ) -> list[str]:
        """The command of a load, with that many fresh tickets if the proxy wants any."""
        lines = self.auth_lines(proxy, tickets)
        return [self._load, proxy.mode, str(proxy.port), str(in_flight), what, str(amount), *lines]

    def auth_lines(self, proxy: Proxy, count: int) -> Sequence[str]:
        """The file with so many lines for AUTH, if the proxy wants any."""
        return (self._tickets.write(proxy.folder, count),) if proxy.mode == "native" else ()

    def hold(self, proxy: Proxy, sessions: int) -> None:
        """Open idle sessions that stay until the benchmark ends.

        :raises SystemExit: not all could be opened.
        """
        holder = self._run(self.load(proxy, HOLD_IN_FLIGHT, "hold", sessions, sessions))
        assert holder.stdout
        opened = json.loads(holder.stdout.readline())
        if opened["failures"]["all"]:
            raise SystemExit(f"{proxy.name}: idle sessions failed: {opened}\n{proxy.log()}")

    def _run(self, command: list[str]) -> subprocess.Popen[str]:
        process = self._stack.enter_context(machine.running(command, self.load_core))
        self.pids.append(process.pid)
        return process
