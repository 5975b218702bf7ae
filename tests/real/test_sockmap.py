"""The relay in the kernel: what passes, and what user space gets to see."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from gameproxy.framing import FORMATS, Control, FrameError, FrameFormat, Verdict
from gameproxy.messages import FrameType
from gameproxy.relay.sockmap import NotTaken, SockmapPlane, Stop, Way, load, tcp
from tests.real.sockmap_rig import (
    GAME,
    INT32,
    ODD_FORMATS,
    SERVER_VERDICTS,
    Session,
    session,
)

NAMED = [pytest.param(format, id=name) for name, format in FORMATS.items()]
ALL_FORMATS = [*NAMED, *(pytest.param(one, id=f"odd-{i}") for i, one in enumerate(ODD_FORMATS))]
BOTH = ["to_server", "to_client"]


def bodies_of(format: FrameFormat, *bodies: bytes) -> list[bytes]:
    """Bodies of sizes that the format can have."""
    return [body[: format.largest].ljust(format.smallest, b"\x30") for body in bodies]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("format", ALL_FORMATS)
def test_formats(plane: SockmapPlane, format: FrameFormat, host: str) -> None:
    """Frames of each format pass both ways in the kernel alone, and are counted: also many in one write."""
    bodies = bodies_of(format, b"", b"\x10", b"\x10" * 130, b"\xff" * 3, b"", b"\x20" * 300)
    stream = b"".join(map(format.encode, bodies))
    with session(plane, format, host=host) as one:
        for sender, receiver, lane in (
            (one.client, one.server, one.to_server),
            (one.server, one.client, one.to_client),
        ):
            for _ in range(3):
                sender.sendall(stream)
                one.expect(receiver, stream)
            assert (lane.frames, lane.size) == (18, 3 * len(stream))
            assert (lane.relayed, lane.ours) == (3 * len(stream), False)
        assert one.handed_back == []


@pytest.mark.parametrize("format", ALL_FORMATS)
def test_every_split(plane: SockmapPlane, format: FrameFormat) -> None:
    """Wherever a stream of three frames is split it passes, and the kernel goes on after user space has helped."""
    stream = b"".join(map(format.encode, bodies_of(format, b"\x10ab", b"", b"\x20" * 3)))
    with session(plane, format) as one:
        for at in range(len(stream)):
            one.client.sendall(stream[:at])
            one.until(lambda: not one.to_server.unread)
            one.client.sendall(stream[at:])
            one.expect(one.server, stream)
            one.until(lambda: not one.to_server.ours)
        assert one.to_server.frames == 3 * len(stream)
        assert one.to_server.relayed > len(stream)


@pytest.mark.parametrize("format", ALL_FORMATS)
def test_single_bytes(plane: SockmapPlane, format: FrameFormat) -> None:
    """A stream that comes byte by byte passes."""
    stream = b"".join(map(format.encode, bodies_of(format, b"\x10ab", b"", b"\x20" * 3)))
    with session(plane, format) as one:
        for at in range(len(stream)):
            one.client.sendall(stream[at : at + 1])
            one.step()
        one.expect(one.server, stream)
        assert one.to_server.frames == 3


@pytest.mark.parametrize("format", NAMED)
def test_largest_bodies(plane: SockmapPlane, format: FrameFormat) -> None:
    """A body of max_frame bytes passes in the kernel; of one byte more nothing passes, and user space has the error of
    the scanner."""
    format = replace(format, max_frame=min(format.max_frame, 1000))
    largest = format.encode(b"\x10" * format.largest)
    bad = replace(format, max_frame=1001).encode(b"\x10" * 1001)
    with session(plane, format) as one:
        one.client.sendall(largest)
        one.expect(one.server, largest)
        assert one.handed_back == []
        one.client.sendall(bad + largest)
        one.until(lambda: one.to_server.scanner.stopped)
        assert str(one.to_server.scanner.stopped) == "a frame of 1001 bytes, where 1000 are allowed"
        assert [lane.stopped for lane in one.handed_back] == [Stop.FRAME]
        one.expect_nothing(one.server)
        assert one.to_server.frames == 1


@pytest.mark.parametrize("split", [None, 0, 1, 2, 3])
def test_bad_headers(plane: SockmapPlane, split: int | None) -> None:
    """Of a bad frame nothing passes, however its header comes, and what came before it in the same buffer does."""
    bad = INT32.encode(b"\x10" * 6).replace(b"\0\0\0\6", b"\xff\xff\xff\xff")
    with session(plane) as one:
        if split is None:
            one.client.sendall(GAME + bad)
        else:
            one.client.sendall(GAME + bad[: split + 1])
            one.expect(one.server, GAME)
            one.client.sendall(bad[split + 1 :])
        one.until(lambda: one.to_server.scanner.stopped)
        assert isinstance(one.to_server.scanner.stopped, FrameError)
        assert one.to_server.scanner.size == len(GAME)
        if split is None:
            one.expect(one.server, GAME)
        one.expect_nothing(one.server)


@pytest.mark.parametrize("type_", range(0x11))
def test_reserved_types(plane: SockmapPlane, type_: int) -> None:
    """A frame of a reserved type stops the lane at whatever place in a burst it stands, unless its type passes."""
    reserved = INT32.encode(bytes([type_]) + b"{}")
    passes = type_ in (FrameType.SETTINGS, 0x10)
    for position in range(4):
        burst = GAME * position + reserved + GAME * (3 - position)
        with session(plane) as one:
            one.server.sendall(burst)
            if passes:
                one.expect(one.client, burst)
                assert one.to_client.relayed == len(burst)
                continue
            one.until(lambda one=one: one.to_client.scanner.stopped)
            assert one.to_client.relayed == 0
            assert [lane.stopped for lane in one.handed_back] == [Stop.FRAME]
            one.expect(one.client, GAME * position)
            one.expect_nothing(one.client)
            stopped = one.to_client.scanner.stopped
            if SERVER_VERDICTS.get(type_) is Verdict.COLLECT:
                assert stopped == Control(bytes([type_]) + b"{}")
            else:
                assert str(stopped) == f"a frame of type 0x{type_:02x}, which may not come here"
            one.client.sendall(GAME)  # the other lane goes on
            one.expect(one.server, GAME)


@pytest.mark.parametrize("split", range(1, 6))
def test_reserved_types_behind_a_split(plane: SockmapPlane, split: int) -> None:
    """Of a frame whose type has not come yet nothing passes."""
    bad = INT32.encode(b"\x01{}")
    with session(plane, client_verdicts={0: Verdict.PASS}) as one:
        one.client.sendall(GAME + bad[:split])
        one.expect(one.server, GAME)
        one.expect_nothing(one.server)
        one.client.sendall(bad[split:])
        one.until(lambda: one.to_server.scanner.stopped)
        one.expect_nothing(one.server)


def test_types_that_are_not_looked_at(plane: SockmapPlane) -> None:
    """Without verdicts all types pass."""
    burst = b"".join(INT32.encode(bytes([type_])) for type_ in range(256))
    with session(plane, client_verdicts=None) as one:
        one.client.sendall(burst)
        one.expect(one.server, burst)
        assert (one.to_server.relayed, one.to_server.frames) == (len(burst), 256)


@pytest.mark.parametrize("direction", BOTH)
def test_hand_back_anywhere(plane: SockmapPlane, direction: str) -> None:
    """A lane taken back at any byte of three frames, and given to the kernel again at any later one, loses, repeats
    and reorders nothing."""
    stream = b"".join(map(INT32.encode, [b"\x10ab", b"", b"\x20c"]))
    with session(plane, resumes=False) as one:
        lane = getattr(one, direction)
        sender, receiver = (
            (one.client, one.server) if lane is one.to_server else (one.server, one.client)
        )
        frames = 0
        for stop in range(len(stream) + 1):
            for resume in range(stop, len(stream) + 1):
                sender.sendall(stream[:stop])
                one.until(lambda: not lane.unread)
                one.pair.stop()
                sender.sendall(stream[stop:resume])
                one.until(lambda: not lane.unread)
                one.until(lane.is_drained)
                came_back = lane.resume()
                # Inside a header user space must go on.
                assert came_back is lane.scanner.holds_nothing
                sender.sendall(stream[resume:])
                one.expect(receiver, stream)
                frames += 3
                one.until(lambda wanted=frames: lane.frames == wanted)
                one.until(lane.resume)
        assert lane.size == frames // 3 * len(stream)


@pytest.mark.parametrize("side", ["client", "server"])
def test_what_is_not_taken(plane: SockmapPlane, side: str) -> None:
    """A session is not taken while something is to be read, while a scanner holds something, or when a side has ended
    its stream; then the same session is, or goes on without the kernel, with nothing changed."""
    with session(plane) as one:
        one.pair.close()
        inner = one.to_server if side == "client" else one.to_client
        outer = getattr(one, side)
        outer.sendall(GAME[:2])
        one.until(lambda: tcp.waiting(inner.source))
        with pytest.raises(NotTaken, match="something to be read"):
            plane.add(INT32, *one.ways())
        assert inner.scanner.scan(inner.source.recv(9)) == b""
        with pytest.raises(NotTaken, match="scanner holds"):
            plane.add(INT32, *one.ways())
        outer.sendall(GAME[2:])
        one.until(lambda: tcp.waiting(inner.source))
        inner.sink.sendall(inner.scanner.scan(inner.source.recv(99)))
        plane.add(INT32, *one.ways()).close()
        outer.sendall(GAME)
        one.until(lambda: tcp.waiting(inner.source))
        inner.sink.sendall(inner.scanner.scan(inner.source.recv(99)))
        outer.shutdown(socket.SHUT_WR)
        one.until(lambda: tcp.received(inner.source).ended)
        with pytest.raises(NotTaken, match="has ended"):
            plane.add(INT32, *one.ways())
        one.expect(one.server if side == "client" else one.client, GAME * 2)


def test_nothing_can_be_counted(plane: SockmapPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be told at first what a sink has taken, the session is not taken: later that could not be told
    either, and its lanes would wait for ever when they are ours again."""
    with session(plane) as one:
        one.pair.close()
        for which in range(2):  # of the two sinks
            answers = iter([*[1] * which, None])
            with monkeypatch.context() as patch:
                patch.setattr(tcp, "written", lambda sink, a=answers: next(a, 1))
                with pytest.raises(NotTaken, match="too fast"):
                    plane.add(INT32, *one.ways())
        plane.add(INT32, *one.ways()).close()


def test_room(plane: SockmapPlane) -> None:
    """A plane takes as many pairs as it was made for, and as many again when they are closed."""
    small = load(2)
    try:
        for _ in range(3):
            with session(small) as one, session(small) as two:
                with pytest.raises(NotTaken, match="full"), session(small):
                    pass
                for each in (one, two):
                    each.client.sendall(GAME)
                    each.expect(each.server, GAME)
    finally:
        small.close()


@pytest.mark.parametrize("first", range(len(GAME)))
def test_stop_after_a_resumption(plane: SockmapPlane, first: int) -> None:
    """A lane that is taken again before anything has come stands where it stood, wherever in a frame that is."""
    with session(plane, resumes=False) as one:
        lane = one.to_server
        one.client.sendall(GAME[:first])
        one.until(lambda: tcp.received(lane.source).size == first)
        one.pair.stop()
        one.client.sendall(GAME[first : first + 1])  # the kernel's own state is old from here on
        one.until(lambda: tcp.received(lane.source).size == first + 1)
        one.until(lambda: not lane.unread and lane.is_drained())
        for _ in range(2):
            assert lane.resume() is lane.scanner.holds_nothing
            one.pair.stop()
        one.client.sendall(GAME[first + 1 : first + 2])
        one.until(lambda: not lane.unread and lane.resume() is lane.scanner.holds_nothing)
        one.client.sendall(GAME[first + 2 :] + GAME * 2)
        one.expect(one.server, GAME * 3)
        one.until(lambda: lane.frames == 3)
        assert lane.scanner.stopped is None


class Prompting(socket.socket):
    """A socket that does something when its descriptor is asked for a certain time: so a hand-over is disturbed at any
    of its steps."""

    _after = 0

    def prompt(self, after: int, act: Callable[[], None]) -> None:
        """Do ``act`` after so many times."""
        self._after, self._act = after, act

    @property
    def was_prompted(self) -> bool:
        """Whether it has been done."""
        return self._after <= 0

    def fileno(self) -> int:
        self._after -= 1
        if self._after == 0:
            self._act()
        return super().fileno()


@pytest.mark.parametrize("what", ["frame", "end", "frame and end"])
@pytest.mark.parametrize("after", range(1, 5))
def test_disturbed_hand_over(plane: SockmapPlane, after: int, what: str) -> None:
    """What comes in the middle of a hand-over, a frame or the end of the stream, is neither lost nor forgotten: it is
    not taken, or the kernel passes it on, or user space gets it."""
    sent = GAME if "frame" in what else b""
    with session(plane) as one:
        one.pair.close()
        client, server = one.ways()

        def act() -> None:
            one.client.sendall(sent)
            if "end" in what:
                one.client.shutdown(socket.SHUT_WR)

        with Prompting(fileno=client.source.detach()) as source:
            source.prompt(after, act)
            try:
                one.hand_over(Way(source, client.scanner), server)
            except NotTaken:
                assert source.recv(99) == sent
                return
            assert source.was_prompted
            one.expect(one.server, sent)
            if "end" in what:
                one.expect_end(one.server)
            one.server_sends(GAME)


def test_disturbed_resumption(plane: SockmapPlane) -> None:
    """A lane is not resumed when something comes meanwhile: that is user space's to pass on."""
    with session(plane, resumes=False) as one:
        one.pair.close()
        client, server = one.ways()
        with Prompting(fileno=server.source.detach()) as sink:
            one.hand_over(client, Way(sink, server.scanner))
            one.pair.stop()
            one.client.sendall(GAME)
            one.expect(one.server, GAME)
            sink.prompt(1, lambda: one.client.sendall(GAME))
            assert not one.to_server.resume()
            assert sink.was_prompted
            one.expect(one.server, GAME)
            assert one.to_server.resume()


def test_hand_over_while_frames_come(plane: SockmapPlane) -> None:
    """Frames that come while the session is handed over are passed on: those before the program ran for their socket
    too."""
    frames = [INT32.encode(b"\x10" + bytes([number])) for number in range(200)]
    for _ in range(20):
        with session(plane) as one:
            one.pair.close()
            start = threading.Barrier(2)

            def play(one: Session = one, start: threading.Barrier = start) -> None:
                start.wait()
                for frame in frames:
                    one.client.sendall(frame)

            player = threading.Thread(target=play)
            player.start()
            start.wait()
            lane = one.to_server
            while True:
                with suppress(BlockingIOError):
                    lane.sink.sendall(lane.scanner.scan(lane.source.recv(65536)))
                try:
                    pair = plane.add(INT32, *one.ways())
                except NotTaken:
                    continue
                break
            player.join()
            one.expect(one.server, b"".join(frames))
            one.until(lambda pair=pair: pair.from_client.frames == len(frames))
            pair.close()


def test_late_events(plane: SockmapPlane) -> None:
    """An event that is taken after the lane has gone from hand to hand takes nothing back."""
    with session(plane) as one:
        one.client.sendall(GAME[:2])
        one.client.sendall(GAME[2:])
        lane = one.to_server
        lane.stop()
        while lane.unread < len(GAME):
            pass
        assert lane.is_drained()
        lane.sink.sendall(lane.scanner.scan(lane.read(99)))
        assert lane.resume()
        assert plane.take_stopped() == []
        assert not lane.ours
        one.client.sendall(GAME)
        one.expect(one.server, GAME * 2)
        assert lane.relayed == len(GAME)


def test_events(plane: SockmapPlane) -> None:
    """The plane becomes readable when a lane stops, once, and is not readable before and after."""
    poll = select.poll()
    poll.register(plane, select.POLLIN)
    with session(plane) as one:
        for _ in range(600):  # twice round the ring
            assert poll.poll(0) == []
            one.client.sendall(GAME[:1])
            assert poll.poll(1000)
            assert plane.take_stopped() == [one.to_server]
            assert one.to_server.stopped is Stop.HEADER
            one.client.sendall(GAME[1:])
            one.until(lambda: not one.to_server.ours)
        one.expect(one.server, GAME * 600)
