"""A flood of connections at a proxy on this machine, from a process of its own: bounded in number, in time, and in
what is open at once. It is the standard library only.

Arguments: what they do, the port, seconds, connections, networks (as many /24 of 127.0.0.0/8 as they come from). It
takes so many seconds, or longer where the machine makes no more connections in that time; never more than four times
as long. When it is over it prints a line of JSON: how many were made, and how many the proxy has ended.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable

OPEN_MOST = 4000
"""Connections at once: a flood that waits for its victim is none, and one that takes all of a machine's descriptors
hits others than the proxy."""
RESET = struct.pack("ii", 1, 0)
SLOW_AUTH = struct.pack(">I", 300) + b'\x01{"protocol": 1, "mechanism": "guest", "name": "'
DRIP = 1.0
"""Seconds between two bytes of those who take their time."""
JUNK = (
    b"GET / HTTP/1.1\r\nHost: game\r\n\r\n",
    b"\xff" * 64,
    b"\0\0\0\2\x10\x10" * 20,
    b"\0\0\0\x16\x01" + b'{"protocol": "\x1b[2J"}' + bytes(200_000),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
)


class Flood:
    """The connections that are open, and what becomes of them."""

    def __init__(self, kind: str, port: int, networks: int) -> None:
        self._begin: Callable[[socket.socket], bool] = getattr(self, f"_{kind}")
        self._target = ("127.0.0.1", port)
        self._networks = networks
        self._poll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._dripping: deque[tuple[float, socket.socket]] = deque()
        self.made = self.ended = self.failed = 0

    def connect(self) -> None:
        """One more, unless too many are open."""
        if len(self._open) >= OPEN_MOST:
            return
        # Not the network that honest clients are on, 127.0.0.
        network = 256 + self.made % self._networks
        source = f"127.{network >> 8}.{network & 255}.{1 + self.made // self._networks % 250}"
        one = socket.socket()
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: a port when it connects
        one.bind((source, 0))
        one.connect_ex(self._target)
        self._open[one.fileno()] = one
        self._poll.register(one, select.EPOLLOUT | select.EPOLLIN)
        self.made += 1

    def turn(self, seconds: float) -> None:
        """Do what is to be done, and wait at most so long for it."""
        for descriptor, events in self._poll.poll(seconds, 512):
            one = self._open[descriptor]
            try:
                if events & (select.EPOLLERR | select.EPOLLHUP):
                    self.failed += not one.getpeername()
                    self._close(one)
                elif events & select.EPOLLIN:
                    if not one.recv(65536):
                        self.ended += 1
                        self._close(one)
                elif self._begin(one):
                    self._poll.modify(one, select.EPOLLIN)
                else:
                    self._close(one)
            except OSError:
                self.ended += 1
                self._close(one)
        now = time.monotonic()
        while self._dripping and self._dripping[0][0] <= now:
            _, one = self._dripping.popleft()
            if one.fileno() >= 0:
                try:
                    one.send(b"x")
                except OSError:
                    continue
                self._dripping.append((now + DRIP, one))

    def close(self) -> None:
        """End all."""
        for one in list(self._open.values()):
            self._close(one)

    def _close(self, one: socket.socket) -> None:
        del self._open[one.fileno()]
        one.close()

    # What they do when they are connected; whether they stay

    def _junk(self, one: socket.socket) -> bool:
        one.send(JUNK[self.made % len(JUNK)])
        return True

    def _slow_auth(self, one: socket.socket) -> bool:
        one.send(SLOW_AUTH)
        self._dripping.append((time.monotonic() + DRIP, one))
        return True

    def _connect_and_close(self, one: socket.socket) -> bool:
        if self.made % 2:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return False


def main(kind: str, port: int, seconds: int, connections: int, networks: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, OPEN_MOST + 100), most))
    flood = Flood(kind, port, networks)
    print("begun", flush=True)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < 4 * seconds:
        if passed >= seconds and flood.made >= connections:
            break
        due = min(connections, int(connections * passed / seconds)) - flood.made
        for _ in range(min(due, 50)):
            flood.connect()
        flood.turn(0.005)
    flood.close()
    passed = time.monotonic() - began
    print(json.dumps({"made": flood.made, "ended": flood.ended, "seconds": passed}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
