"""Reads a run's trace for its timeline."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from gameproxy.simulation.timeline_picture import Lane, Picture, Placed

LINES_MAX: Final = 200_000
"""Lines that a picture keeps: beyond that, the traffic of the beginning is left out."""
TRAFFIC: Final = frozenset({"data", "fin", "close", "syn", "connected", "rst", "thread"})
"""Lines of which a long run has most."""
_PROXY: Final = re.compile(r"proxy\d+(#\d+)?")
_CLIENTS: Final = re.compile(r"clients(#\d+)?")
_LINE: Final = re.compile(r"\d+ .")
_DATABASE: Final = "database"
"""The threads of a proxy in which it uses the farm's; all threads of game servers do."""


def read(trace: Iterable[str]) -> Picture:
    """Read a trace.

    :param trace: its lines, each with its microseconds first, as :class:`gameproxy.simulation.trace.Trace` has them.
    """
    reader = _Reader()
    for line in trace:
        text = line.rstrip("\n")
        if _LINE.match(text) is None:
            continue  # the rest of a line: it is told by its beginning
        at, _, words = text.partition(" ")
        reader.line(int(at), words)
    return reader.picture()


class _Reader:
    """Hears each line once, in order; who a socket belongs to is often known later, so lanes are given at the end."""

    def __init__(self) -> None:
        self.now = 0
        self._picture = Picture()
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._lane_of_process: dict[str, Lane] = {}
        self._lane_of_server: dict[str, Lane] = {}
        self._database = self._lane("database", _DATABASE)
        self._peers: dict[str, str] = {}
        self._socket_at: dict[str, str] = {}
        self._client_of_socket: dict[str, Lane] = {}
        self._client_of_session: dict[str, Lane] = {}
        self._open: dict[int, tuple[int, str, str]] = {}
        self._frozen: dict[str, int] = {}
        self._heard: dict[str, list[str]] = {}
        self._heard_at = -1
        self._cut: dict[str, int] = {}
        self._taken = self._room = self._waiting = 0
        self._lines: list[tuple[int, str, list[str]]] = []
        self._hears: dict[str, Callable[..., object]] = {
            "start": self._starts,
            "spawn": self._starts,
            "serves": self._serves,
            "end": self._ends,
            "freeze": self._freezes,
            "thaw": self._thaws,
            "syn": self._syn,
            "connected": self._connected,
            "data": self._data,
            "comes": self._comes,
            "online": self._online,
            "status": self._status,
            "welcome": self._welcome,
            "gone": self._gone,
            "asks": self._asks,
            "slot": self._slot,
            "free": self._free,
            "joined": self._joined,
            "over": self._session_over,
            "fault": self._fault,
            "cut": self._cuts,
            "mend": self._mends,
            "clog": self._clogs,
            "settle": self._settles,
            "violation": self._fails,
            "failure": self._fails,
        }

    def line(self, at: int, text: str) -> None:
        self.now = at
        words = text.split()
        self._lines.append((at, text, words))
        hear = self._hears.get(words[0]) if words else None
        if hear is not None:
            with suppress(TypeError, ValueError):  # a test's own line, which begins as one of these
                hear(*words[1:])

    def picture(self) -> Picture:
        picture = self._picture
        for name in list(self._frozen):
            self._thaws(name)
        for source in list(self._cut):
            self._over(source)
        for lane in self._lanes.values():
            self._close(lane)
        picture.end = max(self.now, 1)
        order = ("database", "server", "proxy", "client")
        picture.lanes = sorted(self._lanes.values(), key=lambda lane: order.index(lane.kind))
        clients = [lane for lane in picture.lanes if lane.kind == "client"]
        clients.sort(key=lambda lane: int(lane.name) if lane.name.isdecimal() else -1)
        picture.lanes[len(picture.lanes) - len(clients) :] = clients
        self._place()
        return picture

    # Processes

    def _starts(self, process: str, *_: str) -> None:
        kind = "proxy" if _PROXY.fullmatch(process) else "server"
        base = process.partition("#")[0] if kind == "proxy" else process
        lane = self._lane_of_process[process] = self._lane(kind, base)
        self._enter(lane, "up" if kind == "proxy" else "starting", process)

    def _serves(self, process: str, server: str, capacity: str, *_: str) -> None:
        lane = self._lane_of_process.get(process)
        if lane is None:
            self._starts(process)
            lane = self._lane_of_process[process]
        lane.name = server
        lane.capacity = int(capacity)
        self._lane_of_server[server] = lane
        self._enter(lane, "up", process)
        self._room += lane.capacity
        self._step()

    def _ends(self, process: str, status: str = "", by_signal: str = "None", *_: str) -> None:
        lane = self._lane_of_process.get(process)
        if lane is None:
            return
        self._thaws(process)
        if lane.kind == "server" and self._state(lane) == "up":
            self._room -= lane.capacity
            self._step()
        how = f"exit {status}" if by_signal == "None" else f"signal {by_signal}"
        self._close(lane, f", {how}")

    def _freezes(self, process: str, *_: str) -> None:
        self._frozen.setdefault(process, self.now)

    def _thaws(self, process: str, *_: str) -> None:
        since = self._frozen.pop(process, None)
        lane = self._lane_of_process.get(process)
        if since is not None and lane is not None:
            lane.spans.append((since, self.now, "frozen", f"{process} stands still"))

    # Sockets

    def _syn(self, socket: str, port: str, *_: str) -> None:
        if _CLIENTS.fullmatch(_process_of(socket)):
            self._socket_at[port] = socket

    def _connected(self, socket: str, peer: str, *_: str) -> None:
        self._peers[socket] = peer
        self._peers[peer] = socket

    def _data(self, socket: str, *_: str) -> None:
        if self._heard_at != self.now:
            self._heard.clear()
            self._heard_at = self.now
        self._heard.setdefault(_process_of(socket), []).append(socket)

    # Clients

    def _comes(self, number: str, *_: str) -> None:
        self._enter(self._lane("client", number), "connecting", "")

    def _online(self, number: str, port: str, *_: str) -> None:
        lane = self._lane("client", number)
        socket = self._socket_at.get(port)
        if socket is not None:
            self._client_of_socket[socket] = lane
        self._enter(lane, "authenticating", "")

    def _status(self, number: str, state: str = "", *_: str) -> None:
        lane = self._lane("client", number)
        if self._state(lane) != "waiting":
            self._waiting += 1
            self._step()
        self._enter(lane, "waiting", state)

    def _welcome(self, number: str, server: str = "", session: str = "", *_: str) -> None:
        lane = self._lane("client", number)
        self._waits_no_more(lane)
        self._client_of_session[session] = lane
        self._enter(lane, "playing", f"on {server}, session {session}")

    def _gone(self, number: str, why: str = "", *_: str) -> None:
        lane = self._lane("client", number)
        self._waits_no_more(lane)
        self._close(lane)
        lane.spans.append((self.now, self.now, "gone", why))

    def _waits_no_more(self, lane: Lane) -> None:
        if self._state(lane) == "waiting":
            self._waiting -= 1
            self._step()

    # Sessions

    def _asks(self, session: str, port: str, *_: str) -> None:
        lane = self._client_of_socket.get(self._socket_at.get(port, ""))
        if lane is not None:
            self._client_of_session[session] = lane

    def _slot(self, session: str, server: str, *_: str) -> None:
        self._take(server, 1)

    def _free(self, session: str, server: str, *_: str) -> None:
        self._take(server, -1)

    def _take(self, server: str, count: int) -> None:
        self._taken += count
        self._step()
        lane = self._lane_of_server.get(server)
        if lane is not None:
            lane.steps.append((self.now, (lane.steps[-1][1] if lane.steps else 0) + count))

    def _joined(self, server: str, session: str, *_: str) -> None:
        """The connection on which a player joins is the one that had data just now, if there was but one."""
        lane = self._lane_of_server.get(server)
        client = self._client_of_session.get(session)
        if lane is None or client is None or self._heard_at != self.now:
            return
        heard = [
            socket
            for process, sockets in self._heard.items()
            if self._lane_of_process.get(process) is lane
            for socket in dict.fromkeys(sockets)
            if socket not in self._client_of_socket
        ]
        if len(heard) == 1:
            self._client_of_socket[heard[0]] = client

    def _session_over(self, session: str, reason: str, *_: str) -> None:
        reasons = self._picture.reasons
        reasons[reason] = reasons.get(reason, 0) + 1

    # What goes wrong

    def _fault(self, *words: str) -> None:
        self._picture.faults.append((self.now, " ".join(words[1:]) or " ".join(words)))

    def _cuts(self, source: str, target: str, *_: str) -> None:
        self._cut.setdefault(f"cut {source} → {target}", self.now)

    def _mends(self, source: str, target: str, *_: str) -> None:
        self._over(f"cut {source} → {target}")

    def _clogs(self, source: str, target: str, extra: str = "0", *_: str) -> None:
        what = f"clog {source} → {target}"
        self._over(what)
        if extra != "0":
            self._cut[what] = self.now

    def _over(self, what: str) -> None:
        since = self._cut.pop(what, None)
        if since is not None:
            self._picture.troubles.append((since, self.now, what))

    def _settles(self, *_: str) -> None:
        self._picture.settles = self.now

    def _fails(self, *words: str) -> None:
        if self._picture.failure is None:
            self._picture.failure = (self.now, " ".join(words))

    # Lanes

    def _lane(self, kind: str, name: str) -> Lane:
        lane = self._lanes.get((kind, name))
        if lane is None:
            lane = self._lanes[kind, name] = Lane(kind, name)
        return lane

    def _state(self, lane: Lane) -> str | None:
        begun = self._open.get(id(lane))
        return None if begun is None else begun[1]

    def _enter(self, lane: Lane, state: str, words: str) -> None:
        if self._state(lane) != state:
            self._close(lane)
            self._open[id(lane)] = self.now, state, words

    def _close(self, lane: Lane, words: str = "") -> None:
        begun = self._open.pop(id(lane), None)
        if begun is not None:
            lane.spans.append((begun[0], self.now, begun[1], begun[2] + words))

    def _step(self) -> None:
        step = (self.now, self._taken, self._room, self._waiting)
        farm = self._picture.farm
        if farm and farm[-1][0] == self.now:
            farm[-1] = step
        else:
            farm.append(step)

    # Lines

    def _place(self) -> None:
        """Give each line its lanes."""
        picture = self._picture
        numbers = {id(lane): number for number, lane in enumerate(picture.lanes)}
        too_many = len(self._lines) - LINES_MAX
        for at, text, words in self._lines:
            if too_many > 0 and words and words[0] in TRAFFIC:
                too_many -= 1
                picture.left_out += 1
                continue
            lane, source, client = self._lanes_of(words)
            travel = _travel(words)
            picture.lines.append(
                Placed(
                    at,
                    -1 if lane is None else numbers[id(lane)],
                    -1 if source is None else numbers[id(source)],
                    travel,
                    -1 if client is None else numbers[id(client)],
                    text,
                )
            )

    def _lanes_of(self, words: list[str]) -> tuple[Lane | None, Lane | None, Lane | None]:
        """Where a line happened, from where it came, and whose session it is of."""
        verb, first, second, third = [*words, "", "", "", ""][:4]
        if verb in ("comes", "online", "status", "welcome", "gone"):
            client = self._lanes.get(("client", first))
            return client, None, client
        if verb in ("asks", "slot", "free"):
            return self._lane_of_server.get(second), None, self._client_of_session.get(first)
        if verb == "over":
            return self._lane_of_server.get(third), None, self._client_of_session.get(first)
        if verb == "joined":
            return self._lane_of_server.get(first), None, self._client_of_session.get(second)
        if verb == "thread":
            caller = self._lane_of_process.get(first)
            if caller is not None and (caller.kind == "server" or second == _DATABASE):
                return self._database, caller, None
            return caller, None, None
        peer = self._peers.get(first, "")
        owner = self._client_of_socket.get(first) or self._client_of_socket.get(peer)
        source = self._lane_of(peer) if verb in ("data", "fin") else None
        return self._lane_of(first), source, owner

    def _lane_of(self, name: str) -> Lane | None:
        """Of a socket or a process."""
        process = name if name in self._lane_of_process else _process_of(name)
        return self._lane_of_process.get(process) or self._client_of_socket.get(name)


def _process_of(socket: str) -> str:
    return socket.rpartition(".")[0]


def _travel(words: list[str]) -> int:
    """Microseconds that what came was under way."""
    if words[0] in ("data", "fin") and words[-1].isdecimal():
        return int(words[-1])
    return 0
