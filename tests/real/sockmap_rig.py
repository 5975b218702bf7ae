"""Sessions between real sockets that the kernel relays, with the simplest user space there can be beside it."""

from __future__ import annotations

import fcntl
import select
import socket
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from gameproxy.framing import FORMATS, FrameFormat, FrameScanner, Verdict
from gameproxy.messages import FrameType
from gameproxy.relay.sockmap import Lane, SockmapPlane, Way, tcp

INT32 = FORMATS["int32"]
GAME = INT32.encode(b"\x10hello")
"""A frame of a game."""
LONGEST_WAIT = 30.0
ONE_READ = 65_536
ODD_FORMATS = [
    FrameFormat(length_offset=5, length_bytes=3, byte_order="little", length_adjustment=-3),
    FrameFormat(length_bytes=1, max_frame=200),
    FrameFormat(length_bytes=8, byte_order="little", length_adjustment=4),
    FrameFormat(length_bytes=8, length_adjustment=-(1 << 63)),
    FrameFormat(length_offset=2, length_bytes="varint", length_adjustment=-1),
    FrameFormat(length_bytes="varint", varint_bytes=1),
    FrameFormat(length_offset=255, length_bytes="varint", varint_bytes=10, length_adjustment=-7),
    FrameFormat(length_offset=255, length_bytes=4, byte_order="little"),
    FrameFormat(length_bytes=3),
]
"""Formats that have no name."""
SERVER_VERDICTS: Mapping[int, Verdict] = {
    FrameType.SETTINGS: Verdict.PASS,
    FrameType.CLOSE: Verdict.COLLECT,
    FrameType.KICK: Verdict.COLLECT,
}
CLIENT_VERDICTS: Mapping[int, Verdict] = {FrameType.CLOSE: Verdict.COLLECT}


def connected(host: str = "127.0.0.1", buffers: int | None = None) -> tuple[Any, Any]:
    """Both ends of a TCP connection; the second does not block, as it is the proxy's.

    :param buffers: bytes of each kernel buffer, if not the usual.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        if buffers is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        listening.bind((host, 0))
        listening.listen()
        outer = socket.socket(family)
        if buffers is not None:
            outer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        outer.connect(listening.getsockname())
        inner, _ = listening.accept()
    for one in (outer, inner):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffers is not None:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
    inner.setblocking(False)
    return outer, inner


class Pump:
    """Moves what the kernel leaves of one lane, as a relay in user space would.

    :ivar ended: whether the source's stream has ended and the sink's was ended after all of it.
    :ivar taken: bytes that it has read.
    """

    def __init__(self, lane: Lane, resumes: bool) -> None:
        self.lane = lane
        self.ended = False
        self.taken = 0
        self._resumes = resumes
        self._rest = b""
        self._source_ended = False

    def __str__(self) -> str:
        """Where it stands, for those who want to know why it does not go on."""
        lane = self.lane
        record = lane._record
        fields = [name for name, *_ in record._fields_ if not name.endswith("bucket")]
        queues = [
            int.from_bytes(fcntl.ioctl(one, name, bytes(4)), "little")
            for one, name in ((lane.source, termios.FIONREAD), (lane.sink, termios.TIOCOUTQ))
        ]
        return (
            f"ours {lane.ours}, unread {lane.unread}, drained {lane.is_drained()}, {lane.size} bytes, "
            f"scanner {lane.scanner.remaining} {lane.scanner.stopped}, source {tcp.received(lane.source)} "
            f"{queues[0]}, sink {tcp.written(lane.sink)} {queues[1]} since {lane._first_written} {lane._first_bytes}, "
            f"rest {len(self._rest)}, ended {self._source_ended} {self.ended}, "
            f"{ {name: getattr(record, name) for name in fields} }"
        )

    def step(self) -> None:
        """Move what can be moved now."""
        lane = self.lane
        if self.ended:
            return
        if not lane.ours:
            if lane.has_ended() and lane.is_drained():
                self._end()
            return
        if not lane.is_drained():
            return  # the kernel's bytes come first
        if self._rest and not self._send():
            return
        while lane.scanner.stopped is None and not self._source_ended:
            try:
                data = lane.read(ONE_READ)
            except BlockingIOError:
                if self._resumes:
                    lane.resume()
                return
            self.taken += len(data)
            self._source_ended = not data
            self._rest = bytes(lane.scanner.scan(data))
            if not self._send():
                return
        if self._source_ended and not self._rest:
            self._end()

    def _send(self) -> bool:
        try:
            while self._rest:
                self._rest = self._rest[self.lane.sink.send(self._rest) :]
        except BlockingIOError:
            return False
        return True

    def _end(self) -> None:
        self.ended = True
        self.lane.sink.shutdown(socket.SHUT_WR)


class Session:
    """A client and a game server with the kernel between them.

    :ivar client: the client's end; it blocks.
    :ivar server: the game server's end; it blocks.
    :param resumes: whether lanes are given to the kernel again as soon as can be.
    :param early: what the client sends, and user space reads, before.
    """

    def __init__(
        self,
        plane: SockmapPlane,
        format: FrameFormat = INT32,
        client_verdicts: Mapping[int, Verdict] | None = CLIENT_VERDICTS,
        server_verdicts: Mapping[int, Verdict] | None = SERVER_VERDICTS,
        host: str = "127.0.0.1",
        resumes: bool = True,
        buffers: int | None = None,
        limits: Mapping[str, Any] | None = None,
        early: bytes = b"",
        **more: Any,
    ) -> None:
        self.plane = plane
        self.client, self._from_client = connected(host, buffers)
        self.server, self._from_server = connected(host, buffers)
        self.handed_back: list[Lane] = []
        self._format, self._resumes = format, resumes
        self.client.sendall(early)
        while early:
            with suppress(BlockingIOError):
                early = early[len(self._from_client.recv(len(early))) :]
        self.hand_over(
            Way(self._from_client, FrameScanner(format, client_verdicts), **(limits or {})),
            Way(self._from_server, FrameScanner(format, server_verdicts)),
            **more,
        )

    def hand_over(self, client: Way, server: Way, **more: Any) -> None:
        """Give both to the kernel."""
        self.pair = self.plane.add(self._format, client, server, **more)
        self.to_server, self.to_client = self.pair.lanes
        self.pumps = [Pump(lane, self._resumes) for lane in self.pair.lanes]

    def step(self) -> None:
        """Let user space do what there is to do."""
        self.handed_back += self.plane.take_stopped()
        for pump in self.pumps:
            pump.step()

    @property
    def ends(self) -> tuple[Any, Any]:
        """The client's and the game server's."""
        return self.client, self.server

    def server_sends(self, data: bytes) -> None:
        """Let the game server send, and the client receive it."""
        self.server.sendall(data)
        self.expect(self.client, data)

    def until(self, condition: Callable[[], object], longest: float = LONGEST_WAIT) -> None:
        """Go on until it holds."""
        end = time.monotonic() + longest
        poll = select.poll()
        poll.register(self.plane, select.POLLIN)
        while not condition():
            assert time.monotonic() < end, f"it has taken too long: {[*map(str, self.pumps)]}"
            poll.poll(1)
            self.step()

    def expect(self, at: socket.socket, wanted: bytes) -> None:
        """These bytes must be the next ones there."""
        found = bytearray()

        def come() -> bool:
            with suppress(BlockingIOError):
                found.extend(at.recv(len(wanted) - len(found), socket.MSG_DONTWAIT))
            return len(found) >= len(wanted)

        if wanted:
            self.until(come)
        assert found == wanted

    def expect_nothing(self, at: socket.socket) -> None:
        """Nothing may come there, for a moment."""
        for _ in range(5):
            self.step()
            time.sleep(0.002)
        with pytest.raises(BlockingIOError):
            at.recv(1, socket.MSG_DONTWAIT)

    def expect_end(self, at: socket.socket) -> None:
        """The end of the stream must be next there."""
        ends: list[bytes] = []

        def come() -> bool:
            try:
                ends.append(at.recv(1, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return False
            return True

        self.until(come)
        assert ends == [b""]

    def ways(self) -> tuple[Way, Way]:
        """What is needed to hand the session over again, when it is in no map."""
        client, server = self.pair.lanes
        return Way(client.source, client.scanner), Way(server.source, server.scanner)

    def close(self) -> None:
        """Let go of everything."""
        self.pair.close()
        for one in (self.client, self.server, self._from_client, self._from_server):
            one.close()


@contextmanager
def session(plane: SockmapPlane, *args: Any, **more: Any) -> Iterator[Session]:
    """A session for as long as the block takes."""
    opened = Session(plane, *args, **more)
    try:
        yield opened
    finally:
        opened.close()
