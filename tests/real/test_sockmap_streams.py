"""The relay in the kernel with much data, slow readers, and ends of streams."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import threading
import time

import pytest

from gameproxy.framing import FORMATS, FrameFormat
from gameproxy.relay.sockmap import SockmapPlane, Stop, tcp
from tests.real.sockmap_rig import GAME, INT32, LONGEST_WAIT, ODD_FORMATS, session

MEGABYTE = 1 << 20
RESET = struct.pack("ii", 1, 0)


class Sender(threading.Thread):
    """Sends frames until so many bytes are reached, then ends the stream.

    :ivar sent: bytes so far.
    """

    def __init__(self, at: socket.socket, format: FrameFormat, size: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.digest = hashlib.sha256()
        self._at, self._format, self._size = at, format, size
        self._random = random.Random(seed)
        self.start()

    def run(self) -> None:
        while self.sent < self._size:
            frames = []
            for _ in range(self._random.randint(1, 20)):
                most = min(self._format.largest, self._random.choice([3, 64, 2000, 40_000]))
                body = b"\x10" + self._random.randbytes(self._random.randint(0, most - 1))
                frames.append(self._format.encode(body.ljust(self._format.smallest, b"\x10")))
            data = b"".join(frames)
            self._at.sendall(data)
            self.digest.update(data)
            self.sent += len(data)
        self._at.shutdown(socket.SHUT_WR)


class Receiver(threading.Thread):
    """Receives until the end of the stream.

    :ivar received: bytes so far.
    :param starts: set when it may begin.
    """

    def __init__(self, at: socket.socket, starts: threading.Event | None = None) -> None:
        super().__init__(daemon=True)
        self.received = 0
        self.digest = hashlib.sha256()
        self._at, self._starts = at, starts
        self.start()

    def run(self) -> None:
        if self._starts is not None:
            self._starts.wait(LONGEST_WAIT)
        while data := self._at.recv(MEGABYTE):
            self.digest.update(data)
            self.received += len(data)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("format", FORMATS)
def test_much_both_ways(plane: SockmapPlane, format: str, host: str) -> None:
    """Many megabytes both ways at once arrive as they were sent, and the end of each stream after all of it, however
    often lanes go from hand to hand meanwhile."""
    size = 8 * MEGABYTE
    with session(plane, FORMATS[format], host=host) as one:
        senders = [Sender(end, FORMATS[format], size, i) for i, end in enumerate(one.ends)]
        receivers = [Receiver(end) for end in reversed(one.ends)]
        one.until(lambda: all(pump.ended for pump in one.pumps), longest=60)
        for sender, receiver, lane in zip(senders, receivers, one.pair.lanes, strict=True):
            receiver.join(LONGEST_WAIT)
            assert receiver.received == sender.sent == lane.size
            assert receiver.digest.digest() == sender.digest.digest()
            assert lane.relayed > 0


def test_reader_that_stops(plane: SockmapPlane) -> None:
    """A reader that stops makes the sender stop, with little in between; then all arrives."""
    with session(plane, buffers=65_536) as one:
        start = threading.Event()
        sender = Sender(one.client, INT32, 16 * MEGABYTE, 1)
        receiver = Receiver(one.server, start)
        one.until(lambda: one.handed_back)
        assert [lane.stopped for lane in one.handed_back][:1] == [Stop.BACKLOG]
        at_rest = None
        while sender.sent != at_rest:
            at_rest = sender.sent
            for _ in range(100):
                one.step()
                time.sleep(0.001)
        assert at_rest < 2 * MEGABYTE
        one.server_sends(GAME)  # the other lane goes on
        start.set()
        one.until(lambda: one.pumps[0].ended, longest=30)
        receiver.join(LONGEST_WAIT)
        assert receiver.digest.digest() == sender.digest.digest()
        assert one.to_server.size == sender.sent


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("size", [0, 6, 100_000, 2 * MEGABYTE])
def test_end_behind_data(plane: SockmapPlane, size: int, slow: bool) -> None:
    """The end of a stream arrives after all of its data, also when the reader is slow."""
    frame = INT32.encode(b"\x10" * 996)
    data = frame * (size // 1000) + INT32.encode(b"\x10" * (size % 1000))
    for _ in range(3):
        with session(plane) as one:
            start = threading.Event()
            receiver = Receiver(one.server, start)
            if not slow:
                start.set()
            sender = threading.Thread(
                target=lambda one=one: (one.client.sendall(data), one.client.shutdown(1)),
                daemon=True,
            )
            sender.start()
            for _ in range(50):
                one.step()
                time.sleep(0.001)
            start.set()
            one.until(lambda one=one: one.pumps[0].ended)
            sender.join(LONGEST_WAIT)
            receiver.join(LONGEST_WAIT)
            assert receiver.received == len(data) == one.to_server.size
            one.server_sends(GAME)  # the other way stays open


def test_end_behind_a_backlog(plane: SockmapPlane) -> None:
    """What a client sends that does not read can wait in the kernel behind what it does not read; it is not forgotten
    when the client ends its stream."""
    with session(plane) as one:
        start = threading.Event()
        sender = Sender(one.server, INT32, 16 * MEGABYTE, 1)
        receiver = Receiver(one.client, start)
        one.until(lambda: one.to_client.ours)
        assert one.to_client.stopped is Stop.BACKLOG
        one.client.sendall(GAME + GAME[:2])  # for user space to judge
        one.client.shutdown(socket.SHUT_WR)
        one.until(lambda: one.to_server.ours)
        for _ in range(20):
            one.step()
        start.set()
        one.expect(one.server, GAME)
        one.expect_end(one.server)
        one.until(lambda: one.pumps[1].ended)
        receiver.join(LONGEST_WAIT)
        assert receiver.digest.digest() == sender.digest.digest()


def test_end_that_is_not_reached(plane: SockmapPlane) -> None:
    """A stream has not ended before all of it was read."""
    with session(plane) as one:
        one.pumps.clear()
        one.client.sendall(GAME)
        one.pair.stop()
        one.client.sendall(GAME)
        assert not one.to_server.has_ended()
        one.client.shutdown(socket.SHUT_WR)
        one.until(lambda: tcp.received(one.to_server.source).ended)
        assert not one.to_server.has_ended()
        assert one.to_server.read(99) == GAME
        assert one.to_server.has_ended()
        assert one.to_server.read(99) == b""


def test_end_inside_a_header(plane: SockmapPlane) -> None:
    """What is incomplete at the end of a stream does not pass, and the end does."""
    with session(plane) as one:
        one.client.sendall(GAME + b"\0\0")
        one.client.shutdown(socket.SHUT_WR)
        one.expect(one.server, GAME)
        one.expect_end(one.server)
        assert one.to_server.scanner.between_frames


@pytest.mark.parametrize("size", [1, 100, 2000])
def test_reset_behind_data(plane: SockmapPlane, size: int) -> None:
    """What came before a reset arrives."""
    with session(plane) as one:
        one.client.sendall(GAME * size)
        one.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.until(lambda: one.to_server.relayed == size * len(GAME))
        one.client.close()
        one.expect(one.server, GAME * size)
        one.until(one.to_server.has_ended)
        one.expect_end(one.server)


def test_reset_of_the_sink(plane: SockmapPlane) -> None:
    """When the reader has reset its connection, the other side's data goes nowhere, and user space gets to know."""
    with session(plane) as one:
        one.pumps.clear()
        one.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.server.close()
        one.until(one.to_client.has_ended)
        one.client.sendall(GAME)
        one.until(lambda: one.to_server.ours or one.to_server.relayed)
        assert not one.to_server.has_ended()


def test_stop_is_final(plane: SockmapPlane) -> None:
    """When a lane was stopped the kernel passes on nothing more, also when it was just at it."""
    block = INT32.encode(b"") * 16_000  # which the program takes long to look at
    rounds, delays = 150, random.Random(1)
    with session(plane) as one:
        go = threading.Barrier(2)

        def play() -> None:
            for _ in range(rounds):
                go.wait(LONGEST_WAIT)
                one.client.sendall(block)

        Receiver(one.server)
        threading.Thread(target=play, daemon=True).start()
        lane = one.to_server
        for number in range(1, rounds + 1):
            go.wait(LONGEST_WAIT)
            time.sleep(delays.uniform(0, 0.0006))
            lane.stop()
            relayed = lane.relayed
            time.sleep(0.001)
            assert lane.relayed == relayed
            size = number * len(block)
            one.until(lambda size=size: lane.size == size and not lane.ours)
        assert lane.frames == rounds * 16_000
        one.client.shutdown(socket.SHUT_WR)
        one.until(lambda: one.pumps[0].ended)


@pytest.mark.parametrize("was_stopped", [False, True])
def test_resumed_and_given_back_at_once(
    plane: SockmapPlane, monkeypatch: pytest.MonkeyPatch, was_stopped: bool
) -> None:
    """A lane that is resumed, and that the kernel gives back before that is seen, goes on behind what the kernel has
    passed on in between."""
    with session(plane) as one:
        one.pumps.clear()
        lane = one.to_server
        lane.stop()
        if was_stopped:
            one.client.sendall(GAME)
            one.until(lambda: lane.unread and lane.is_drained())
            lane.sink.sendall(lane.scanner.scan(lane.read(99)))
            one.expect(one.server, GAME)
        before = lane.size
        long = INT32.encode(b"\x10" * 100)
        received, calls = tcp.received, []

        def meanwhile(connection: socket.socket) -> tcp.Received:
            calls.append(connection)
            if len(calls) == 2:
                for piece in (long[:50], long[50:] + b"\0\0"):
                    size = received(connection).size
                    one.client.sendall(piece)
                    while received(connection).size == size:
                        pass
            return received(connection)

        with monkeypatch.context() as patch:
            patch.setattr(tcp, "received", meanwhile)
            assert not lane.resume()
        assert lane.ours
        assert (lane.scanner.size, lane.size) == (before + 50, before + 50)
        one.expect(one.server, long[:50])
        assert lane.is_drained()
        assert lane.scanner.scan(lane.read(99)) == long[50:]


def play_at_random(plane: SockmapPlane, seed: int) -> None:
    """Let both sides send as fast as they can, and take lanes from the kernel at any moment; see what arrives."""
    chance = random.Random(seed)
    format = chance.choice([*FORMATS.values(), *ODD_FORMATS])
    size = 50_000 if format.length_offset == 255 or format.largest < 300 else 3 * MEGABYTE
    host, buffers = chance.choice(["127.0.0.1", "::1"]), chance.choice([None, 65_536])
    backlog = chance.choice([1, 65_536, 1 << 20])
    with session(plane, format, host=host, buffers=buffers, backlog_most=backlog) as one:
        senders = [Sender(end, format, size, seed + i) for i, end in enumerate(one.ends)]
        receivers = [Receiver(end) for end in reversed(one.ends)]

        def ended() -> bool:
            if chance.random() < 0.3:
                chance.choice(one.pair.lanes).stop()
            return all(pump.ended for pump in one.pumps)

        one.until(ended, longest=60)
        for sender, receiver, lane in zip(senders, receivers, one.pair.lanes, strict=True):
            receiver.join(10)
            assert receiver.received == sender.sent == lane.size
            assert receiver.digest.digest() == sender.digest.digest()


@pytest.mark.parametrize("seed", range(12))
def test_lanes_taken_at_any_moment(plane: SockmapPlane, seed: int) -> None:
    """Lanes that are taken from the kernel at any moment, and come back, lose, repeat and reorder nothing, in any
    format and with buffers of any size."""
    play_at_random(plane, seed)
