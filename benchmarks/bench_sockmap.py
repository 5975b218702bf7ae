"""What relaying costs in the kernel, in the simplest user space, and how often the kernel needs user space's help.

    .venv/bin/python benchmarks/bench_sockmap.py [--windows 5] [--seconds 1.0] [--backlog 1048576]

An echo server, a load generator and a proxy, all in Python and each a process, on loopback. Windows without a proxy,
with a relay of epoll and a frame scanner, and with the kernel's take turns in shuffled order. Processor time is that of
all three processes and of the kernel's workers (schedstat); what a proxy adds a round trip is the difference to none.
Needs the privileges to load the program.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import select
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from gameproxy.framing import FORMATS, FrameScanner
from gameproxy.relay.sockmap import BACKLOG_MOST, Lane, NotTaken, Pair, Way, load

INT32 = FORMATS["int32"]
ONE_READ = 65_536
KINDS = ("none", "epoll", "sockmap")


@dataclass(frozen=True)
class Load:
    """What the generator does.

    :param body: bytes of each frame's body.
    :param connections: how many at once.
    :param under_way: bytes that each may have sent and not got back.
    :param segment: most bytes of a segment (as on Ethernet, where frames do not end where buffers do); 0: any.
    """

    body: int
    connections: int
    under_way: int
    segment: int = 0


LOADS = {
    "64 B x 50, one at a time": Load(64, 50, 68),
    "64 B x 4, as many as go": Load(64, 4, 65_536),
    "64 B x 4, as many as go, segments of 1448 bytes": Load(64, 4, 1 << 18, 1448),
    "16 KiB x 4, as many as go": Load(16_384, 4, 1 << 20),
    "16 KiB x 4, as many as go, segments of 1448 bytes": Load(16_384, 4, 1 << 20, 1448),
}


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=256)


def tuned(one: socket.socket) -> socket.socket:
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.setblocking(False)
    return one


@dataclass
class Flow:
    """One direction: what has been read and not yet been written."""

    source: socket.socket
    sink: socket.socket
    scanner: FrameScanner | None = None
    rest: bytes = b""
    lane: Lane | None = None

    def step(self) -> bool:
        """Move what can be moved; ``False`` when the stream has ended."""
        try:
            while True:
                if not self.rest:
                    read = self.lane.read if self.lane else self.source.recv
                    data = read(ONE_READ)
                    if not data:
                        return False
                    self.rest = bytes(self.scanner.scan(data)) if self.scanner else data
                self.rest = self.rest[self.sink.send(self.rest) :]
        except BlockingIOError:
            return True
        except OSError:
            return False


def echo(server: socket.socket) -> None:
    """Send back what comes, for ever."""
    poll = select.epoll()
    poll.register(server, select.EPOLLIN)
    flows: dict[int, Flow] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == server.fileno():
                one = tuned(server.accept()[0])
                flows[one.fileno()] = Flow(one, one)
                poll.register(one, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
            elif not flows[descriptor].step():
                flows.pop(descriptor).source.close()


@dataclass
class Numbers:
    """What the kernel's relay has done."""

    stops: Counter[str] = field(default_factory=Counter)
    by_kernel: int = 0
    size: int = 0

    def add(self, pair: Pair) -> None:
        for lane in pair.lanes:
            self.by_kernel += lane.relayed
            self.size += lane.size


def proxy(
    server: socket.socket, target: tuple[str, int], kind: str, told: Connection, backlog: int
) -> None:
    """Relay from ``server`` to ``target``, and tell the numbers when asked."""
    poll = select.epoll()
    poll.register(server, select.EPOLLIN)
    poll.register(told, select.EPOLLIN)
    plane = load(256) if kind == "sockmap" else None
    if plane:
        poll.register(plane, select.EPOLLIN)
    flows: dict[int, Flow] = {}
    pairs: dict[int, Pair] = {}
    numbers = Numbers()

    def close(descriptor: int) -> None:
        flow = flows.pop(descriptor)
        flows.pop(flow.sink.fileno(), None)
        if descriptor in pairs:
            pair = pairs.pop(descriptor)
            pairs.pop(flow.sink.fileno(), None)
            numbers.add(pair)
            pair.close()
        for one in (flow.source, flow.sink):
            one.close()

    def accept() -> None:
        near = tuned(server.accept()[0])
        far = tuned(socket.create_connection(target))
        ways = [Way(one, FrameScanner(INT32, {})) for one in (near, far)]
        for way, sink in ((ways[0], far), (ways[1], near)):
            flows[way.source.fileno()] = Flow(way.source, sink, way.scanner)
        edges = select.EPOLLRDHUP | select.EPOLLET
        if plane:
            pair = None
            while pair is None:
                try:
                    pair = plane.add(INT32, *ways, backlog_most=backlog)
                except NotTaken:
                    for way in ways:
                        flows[way.source.fileno()].step()
            for lane in pair.lanes:
                flows[lane.source.fileno()].lane = lane
                pairs[lane.source.fileno()] = pair
        else:
            edges |= select.EPOLLIN | select.EPOLLOUT
        for one in (near, far):
            poll.register(one, edges)

    def pump(descriptor: int) -> None:
        """Move what the kernel has left, and give the lane back when there is nothing more."""
        flow = flows[descriptor]
        if not flow.lane.is_drained():
            return
        if flow.step() and not flow.rest and flow.lane.resume():
            ours.discard(descriptor)

    ours: set[int] = set()
    while True:
        for descriptor, event in poll.poll(0.001 if ours else -1):
            if descriptor == server.fileno():
                accept()
            elif descriptor == told.fileno():
                told.recv()
                for pair in {id(pair): pair for pair in pairs.values()}.values():
                    numbers.add(pair)
                told.send(numbers)
                numbers = Numbers()
            elif plane and descriptor == plane.fileno():
                for lane in plane.take_stopped():
                    numbers.stops[lane.stopped.name] += 1
                    ours.add(lane.source.fileno())
            elif descriptor in flows and (plane is None or event & select.EPOLLRDHUP):
                # The other direction of the same pair may wait for this socket to take more.
                flow = flows[descriptor]
                goes_on = plane is None and flow.step() & flows[flow.sink.fileno()].step()
                if not goes_on:
                    ours -= {descriptor, flows[descriptor].sink.fileno()}
                    close(descriptor)
        for descriptor in list(ours):
            pump(descriptor)


def generate(told: Connection) -> None:
    """Play loads as they are asked for, and tell how many frames came back."""
    while True:
        port, load_, seconds = told.recv()
        frame = INT32.encode(b"\x10" * load_.body)
        block = frame * max(1, min(load_.under_way, ONE_READ) // len(frame))
        poll = select.epoll()
        sockets = {}
        for _ in range(load_.connections):
            one = socket.socket()
            if load_.segment:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, load_.segment)
            one.connect(("127.0.0.1", port))
            tuned(one)
            sockets[one.fileno()] = [one, 0, b""]  # what is under way, and what is left of a block
            poll.register(one, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        came, begun = 0, time.monotonic()
        told.send(None)
        while (now := time.monotonic()) < begun + seconds:
            for descriptor, _ in poll.poll(begun + seconds - now):
                entry = sockets[descriptor]
                one = entry[0]
                with suppress(BlockingIOError):
                    while True:
                        got = len(one.recv(ONE_READ))
                        came += got
                        entry[1] -= got
                        if got < ONE_READ:
                            break
                with suppress(BlockingIOError):
                    while entry[2] or entry[1] + len(block) <= load_.under_way:
                        entry[2] = entry[2] or block
                        sent = one.send(entry[2])
                        entry[1] += sent
                        entry[2] = entry[2][sent:]
        told.send(came / len(frame) / (time.monotonic() - begun))
        for one, _, _ in sockets.values():
            one.close()
        poll.close()


def busy(processes: list[int]) -> float:
    """Processor seconds of these processes and of the kernel's workers so far."""
    nanoseconds = 0
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name = (path / "comm").read_text()
            if int(path.name) in processes or name.startswith(("kworker", "ksoftirqd")):
                nanoseconds += int((path / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def started(act: Callable[..., None], *args: object) -> multiprocessing.Process:
    process = multiprocessing.Process(target=act, args=args, daemon=True)
    process.start()
    return process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--backlog", type=int, default=BACKLOG_MOST)
    options = parser.parse_args()
    target = listening()
    echoing = started(echo, target)
    here, there = multiprocessing.Pipe()
    generating = started(generate, there)
    ports, numbers_of, processes = {"none": target.getsockname()[1]}, {}, {"none": []}
    for kind in KINDS[1:]:
        server = listening()
        numbers_of[kind], told = multiprocessing.Pipe()
        proxying = started(proxy, server, target.getsockname(), kind, told, options.backlog)
        processes[kind] = [proxying.pid]
        ports[kind] = server.getsockname()[1]
    time.sleep(0.5)
    for name, load_ in LOADS.items():
        rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
        costs: dict[str, list[float]] = {kind: [] for kind in KINDS}
        stops, by_kernel, size = Counter(), 0, 0
        for _ in range(options.windows):
            for kind in random.sample(KINDS, len(KINDS)):
                mine = [echoing.pid, generating.pid, *processes[kind]]
                here.send((ports[kind], load_, options.seconds))
                here.recv()
                before = busy(mine), busy(processes[kind]) if processes[kind] else 0.0
                rate = here.recv()
                total = busy(mine) - before[0]
                rates[kind].append(rate)
                costs[kind].append(total / (rate * options.seconds) * 1e6)
                if kind == "sockmap":
                    numbers_of[kind].send(None)
                    numbers = numbers_of[kind].recv()
                    stops += numbers.stops
                    by_kernel, size = by_kernel + numbers.by_kernel, size + numbers.size
                time.sleep(0.1)
        medians = {kind: statistics.median(costs[kind]) for kind in KINDS}
        print(f"{name}:")
        for kind in KINDS:
            added = medians[kind] - medians["none"]
            print(
                f"  {kind:8} {statistics.median(rates[kind]):9.0f} round trips/s, "
                f"{medians[kind]:6.2f} us of processor a round trip, {added:6.2f} added"
            )
        frames = size / (load_.body + 4)
        print(
            f"  the kernel alone: {by_kernel / max(1, size):.3f} of {frames:.0f} frames; {dict(stops)}"
        )


if __name__ == "__main__":
    main()
