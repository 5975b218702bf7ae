"""What sockets do, as small scenes that are played on real ones and on simulated ones: both must say the same.

A scene is a function of a :class:`World`. It returns what it observed: results of calls, names of errors, readiness.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Protocol

from gameproxy.simulation.kernel import Kernel
from gameproxy.simulation.sockets import SimSocket

Seen = list[object]
LINGER_NOT = struct.pack("ii", 1, 0)


class World(Protocol):
    """Where a scene is played."""

    def socket(self) -> Any: ...
    def settle(self) -> None: ...
    def readiness(self, sock: Any) -> str: ...


class RealWorld:
    """Loopback."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def socket(self) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        self._sockets.append(sock)
        return sock

    def settle(self) -> None:
        """Give the kernel time; loopback needs none, but for softirqs of a loaded machine."""
        time.sleep(0.004)

    def readiness(self, sock: socket.socket) -> str:
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLOUT)
        events = dict(poll.poll(0)).get(sock.fileno(), 0)
        broken = events & (select.POLLERR | select.POLLHUP)
        return ("r" if events & select.POLLIN or broken else "-") + (
            "w" if events & select.POLLOUT or broken else "-"
        )

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


class SimulatedWorld:
    """Two simulated processes of one machine, without chance."""

    def __init__(self, kernel: Kernel | None = None) -> None:
        self.kernel = kernel or Kernel(0)
        conditions = self.kernel.network.conditions
        conditions.segments = conditions.short_writes = 0
        self.process = self.kernel.add_machine("here", "10.0.0.1").start("scene")

    def socket(self) -> SimSocket:
        return SimSocket(self.process)

    def settle(self) -> None:
        self.kernel.run(until=self.kernel.now + 500_000)

    def readiness(self, sock: SimSocket) -> str:
        return ("r" if sock.is_readable else "-") + ("w" if sock.is_writable else "-")

    def close(self) -> None:
        self.process.end()


def told(call: Callable[..., Any], *arguments: object) -> object:
    """What a call returned, or the name of its error."""
    try:
        result = call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return len(result) if isinstance(result, bytes) and len(result) > 64 else result


def listen(world: World, backlog: int = 5) -> Any:
    listener = world.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(backlog)
    return listener


def pair(world: World) -> tuple[Any, Any]:
    """A connection: the client's end, and the server's."""
    listener = listen(world)
    client = world.socket()
    client.connect_ex(listener.getsockname())
    world.settle()
    server, _ = listener.accept()
    server.setblocking(False)
    listener.close()
    return client, server


def so_error(sock: Any) -> str:
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode[number] if number else "none"


def abort(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    sock.close()


def fill(world: World, sock: Any) -> int:
    """Write until nothing more is taken."""
    written = 0
    for _ in range(2_000):
        try:
            written += sock.send(b"x" * 16384)
        except BlockingIOError:
            world.settle()
            try:
                written += sock.send(b"x" * 16384)
            except BlockingIOError:
                return written
    raise AssertionError("it takes all")


def drain(world: World, sock: Any) -> int:
    """Read until nothing more comes."""
    size = 0
    while True:
        try:
            data = sock.recv(65536)
        except BlockingIOError:
            world.settle()
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                return size
        if not data:
            return size
        size += len(data)


# Connecting


def connect_is_in_progress(w: World) -> Seen:
    listener, client = listen(w), w.socket()
    seen: Seen = [errno.errorcode[client.connect_ex(listener.getsockname())]]
    w.settle()
    return [*seen, so_error(client), w.readiness(client), w.readiness(listener)]


def connect_refused(w: World) -> Seen:
    listener, client = listen(w), w.socket()
    address = listener.getsockname()
    listener.close()
    client.connect_ex(address)
    w.settle()
    return [w.readiness(client), so_error(client), so_error(client)]


def recv_after_refused(w: World) -> Seen:
    listener, client = listen(w), w.socket()
    address = listener.getsockname()
    listener.close()
    client.connect_ex(address)
    w.settle()
    return [told(client.recv, 10), told(client.recv, 10)]


def recv_before_connecting(w: World) -> Seen:
    return [told(w.socket().recv, 10)]


def send_before_connecting(w: World) -> Seen:
    return [told(w.socket().send, b"x")]


def peername_before_connecting(w: World) -> Seen:
    return [told(w.socket().getpeername)]


def shutdown_before_connecting(w: World) -> Seen:
    return [told(w.socket().shutdown, socket.SHUT_WR)]


def accept_with_nobody_there(w: World) -> Seen:
    listener = listen(w)
    return [told(listener.accept), w.readiness(listener)[0]]


def accept_takes_one_each(w: World) -> Seen:
    listener = listen(w)
    for _ in range(3):
        w.socket().connect_ex(listener.getsockname())
    w.settle()
    seen: Seen = []
    for _ in range(3):
        seen += [w.readiness(listener)[0]]
        listener.accept()
    return [*seen, told(listener.accept)]


def names_of_both_ends_match(w: World) -> Seen:
    client, server = pair(w)
    return [
        client.getsockname() == server.getpeername(),
        client.getpeername() == server.getsockname(),
    ]


def bind_to_a_port_in_use(w: World) -> Seen:
    listener = listen(w)
    return [told(w.socket().bind, listener.getsockname())]


def bind_again_after_close(w: World) -> Seen:
    listener = listen(w)
    address = listener.getsockname()
    listener.close()
    return [told(w.socket().bind, address)]


def port_zero_gives_different_ports(w: World) -> Seen:
    ports = {listen(w).getsockname()[1] for _ in range(4)}
    return [len(ports), 0 in ports]


def client_gone_before_accept(w: World) -> Seen:
    listener, client = listen(w), w.socket()
    client.connect_ex(listener.getsockname())
    w.settle()
    client.close()
    w.settle()
    server, _ = listener.accept()
    server.setblocking(False)
    return [told(server.recv, 10), w.readiness(server)]


def client_aborts_before_accept(w: World) -> Seen:
    listener, client = listen(w), w.socket()
    client.connect_ex(listener.getsockname())
    w.settle()
    abort(client)
    w.settle()
    server, _ = listener.accept()
    server.setblocking(False)
    return [w.readiness(server), told(server.recv, 10), told(server.recv, 10)]


def data_before_accept(w: World) -> Seen:
    listener, client = listen(w), w.socket()
    client.connect_ex(listener.getsockname())
    w.settle()
    seen: Seen = [told(client.send, b"early")]
    w.settle()
    server, _ = listener.accept()
    server.setblocking(False)
    return [*seen, told(server.recv, 10)]


def listener_closed_with_clients_waiting(w: World) -> Seen:
    listener, client = listen(w), w.socket()
    client.connect_ex(listener.getsockname())
    w.settle()
    listener.close()
    w.settle()
    return [w.readiness(client), told(client.recv, 10), told(client.recv, 10)]


def listener_closed_after_accept(w: World) -> Seen:
    client, server = pair(w)  # which closes the listener
    client.send(b"still")
    w.settle()
    return [told(server.recv, 10)]


def full_backlog_delays_nobody_else(w: World) -> Seen:
    listener = listen(w, 0)
    first = w.socket()
    first.connect_ex(listener.getsockname())
    w.settle()
    return [w.readiness(first)[1], w.readiness(listener)[0]]


# Data


def bytes_arrive(w: World) -> Seen:
    client, server = pair(w)
    seen: Seen = [told(client.send, b"hello")]
    w.settle()
    return [*seen, w.readiness(server), told(server.recv, 2), told(server.recv, 10)]


def nothing_to_read(w: World) -> Seen:
    client, _server = pair(w)
    return [told(client.recv, 10), w.readiness(client)]


def writes_are_one_stream(w: World) -> Seen:
    client, server = pair(w)
    for word in (b"one", b"two", b"three"):
        client.send(word)
    w.settle()
    return [told(server.recv, 100)]


def both_ways_at_once(w: World) -> Seen:
    client, server = pair(w)
    client.send(b"ping")
    server.send(b"pong")
    w.settle()
    return [told(client.recv, 10), told(server.recv, 10)]


def empty_send(w: World) -> Seen:
    client, server = pair(w)
    seen: Seen = [told(client.send, b"")]
    w.settle()
    return [*seen, told(server.recv, 10)]


def a_full_buffer_takes_no_more(w: World) -> Seen:
    client, server = pair(w)
    fill(w, client)
    return [told(client.send, b"x"), w.readiness(client), w.readiness(server)]


def what_was_taken_arrives(w: World) -> Seen:
    client, server = pair(w)
    written = fill(w, client)
    return [drain(w, server) == written, w.readiness(client)]


def a_read_makes_room(w: World) -> Seen:
    client, server = pair(w)
    fill(w, client)
    drain(w, server)
    w.settle()
    return [told(client.send, b"x")]


def a_full_buffer_one_way_leaves_the_other(w: World) -> Seen:
    client, server = pair(w)
    fill(w, client)
    seen: Seen = [told(server.send, b"other way")]
    w.settle()
    return [*seen, told(client.recv, 20)]


# Ends


def end_after_data(w: World) -> Seen:
    client, server = pair(w)
    client.send(b"bye")
    client.close()
    w.settle()
    return [w.readiness(server), told(server.recv, 10), told(server.recv, 10), told(server.recv, 1)]


def end_without_data(w: World) -> Seen:
    client, server = pair(w)
    client.close()
    w.settle()
    return [w.readiness(server), told(server.recv, 10)]


def end_waits_behind_a_full_buffer(w: World) -> Seen:
    client, server = pair(w)
    written = fill(w, client)
    client.close()
    w.settle()
    return [drain(w, server) == written, told(server.recv, 10)]


def half_close_lets_the_other_way_open(w: World) -> Seen:
    client, server = pair(w)
    client.shutdown(socket.SHUT_WR)
    w.settle()
    seen: Seen = [told(server.recv, 10), told(server.send, b"answer")]
    w.settle()
    return [*seen, told(client.recv, 10), w.readiness(client)]


def send_after_half_close(w: World) -> Seen:
    client, _server = pair(w)
    client.shutdown(socket.SHUT_WR)
    return [told(client.send, b"x"), told(client.send, b"x")]


def half_close_twice(w: World) -> Seen:
    client, _server = pair(w)
    return [told(client.shutdown, socket.SHUT_WR), told(client.shutdown, socket.SHUT_WR)]


def both_half_closes(w: World) -> Seen:
    client, server = pair(w)
    client.shutdown(socket.SHUT_WR)
    w.settle()
    server.shutdown(socket.SHUT_WR)
    w.settle()
    return [told(client.recv, 10), told(server.recv, 10), w.readiness(client)]


def both_close_at_once(w: World) -> Seen:
    client, server = pair(w)
    client.shutdown(socket.SHUT_WR)
    server.shutdown(socket.SHUT_WR)
    w.settle()
    return [told(client.recv, 10), told(server.recv, 10), told(server.send, b"x")]


def shutdown_after_the_peer_closed(w: World) -> Seen:
    client, server = pair(w)
    client.close()
    w.settle()
    return [told(server.shutdown, socket.SHUT_WR)]


# Resets


def abort_is_a_reset(w: World) -> Seen:
    client, server = pair(w)
    abort(client)
    w.settle()
    return [w.readiness(server), told(server.recv, 10), told(server.recv, 10)]


def send_after_reset(w: World) -> Seen:
    client, server = pair(w)
    abort(client)
    w.settle()
    return [told(server.send, b"x"), told(server.send, b"x")]


def reset_told_once(w: World) -> Seen:
    client, server = pair(w)
    abort(client)
    w.settle()
    return [so_error(server), told(server.recv, 10), told(server.send, b"x")]


def data_before_a_reset(w: World) -> Seen:
    client, server = pair(w)
    client.send(b"last words")
    w.settle()
    abort(client)
    w.settle()
    return [told(server.recv, 20), told(server.recv, 20), told(server.recv, 20)]


def close_with_unread_data_resets(w: World) -> Seen:
    client, server = pair(w)
    client.send(b"unread")
    w.settle()
    server.close()
    w.settle()
    return [w.readiness(client), told(client.recv, 10), told(client.recv, 10)]


def answer_lost_by_close_with_unread_data(w: World) -> Seen:
    client, server = pair(w)
    client.send(b"unread")
    w.settle()
    server.send(b"answer")
    w.settle()
    server.close()
    w.settle()
    return [told(client.recv, 10), told(client.recv, 10)]


def data_to_a_closed_peer_resets(w: World) -> Seen:
    client, server = pair(w)
    server.close()
    w.settle()
    seen: Seen = [told(client.send, b"x")]
    w.settle()
    return [*seen, w.readiness(client), told(client.send, b"x"), told(client.send, b"x")]


def read_after_data_to_a_closed_peer(w: World) -> Seen:
    client, server = pair(w)
    server.send(b"left behind")
    server.close()
    w.settle()
    client.send(b"x")
    w.settle()
    return [told(client.recv, 20), told(client.recv, 20), told(client.recv, 20)]


def reset_meets_a_reader_that_pauses(w: World) -> Seen:
    client, server = pair(w)
    fill(w, client)
    abort(client)
    w.settle()
    taken = told(server.recv, 16)
    return [taken == b"x" * 16, w.readiness(server)]


def reset_of_what_was_half_closed(w: World) -> Seen:
    client, server = pair(w)
    client.shutdown(socket.SHUT_WR)
    w.settle()
    abort(server)
    w.settle()
    return [w.readiness(client), told(client.recv, 10), told(client.recv, 10)]


def reset_after_the_peers_end(w: World) -> Seen:
    client, server = pair(w)
    server.shutdown(socket.SHUT_WR)
    w.settle()
    client.send(b"unread")
    w.settle()
    server.close()
    w.settle()
    return [so_error(client), told(client.recv, 10), told(client.send, b"x")]


def shutdown_after_reset(w: World) -> Seen:
    client, server = pair(w)
    abort(client)
    w.settle()
    return [told(server.shutdown, socket.SHUT_WR)]


def peername_after_reset(w: World) -> Seen:
    client, server = pair(w)
    abort(client)
    w.settle()
    return [told(server.getpeername)]


# What the system tells


def acknowledged_bytes_are_told(w: World) -> Seen:
    client, server = pair(w)
    before = _acknowledged(client)
    client.send(b"x" * 1000)
    w.settle()
    after = _acknowledged(client)
    return [after - before, drain(w, server)]


def nothing_acknowledged_while_the_reader_stands(w: World) -> Seen:
    client, _server = pair(w)
    fill(w, client)
    before = _acknowledged(client)
    w.settle()
    return [_acknowledged(client) - before, _waiting(client) > 0]


def keepalive_options_are_kept(w: World) -> Seen:
    client, _server = pair(w)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    return [
        client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    ]


def descriptor_after_close(w: World) -> Seen:
    client, _server = pair(w)
    client.close()
    return [client.fileno()]


def _acknowledged(sock: Any) -> int:
    (count,) = struct.unpack_from(
        "=Q", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), 120
    )
    return int(count)


def _waiting(sock: Any) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    (segments,) = struct.unpack_from("=I", info, 24)
    (unsent,) = struct.unpack_from("=I", info, 144)
    return int(segments) + int(unsent)


SCENES: list[Callable[[World], Seen]] = [
    value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__annotations__", {}).get("return") == "Seen"
]
