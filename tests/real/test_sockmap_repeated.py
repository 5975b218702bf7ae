"""The relay in the kernel when TCP repeats what has come, in one piece with what has not."""

from __future__ import annotations

import random
import socket

import pytest

from gameproxy.relay.sockmap import SockmapPlane, Stop
from tests.real.sockmap_rig import GAME, INT32, Session, session
from tests.real.tcp_repair import set_back

SIZES = [1, 50, 4095, 4096, 40_000]


def told(seed: int, size: int) -> bytes:
    """A frame of bytes that are all different, as far as bytes can be."""
    return INT32.encode(b"\x10" + random.Random(seed).randbytes(size - 5))


def repeat(one: Session, sent: bytes, size: int, more: bytes) -> None:
    """Let the client send the last of what it has sent again, and more behind it."""
    one.client = set_back(one.client, size)
    one.client.sendall(sent[len(sent) - size :] + more)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("size", SIZES)
def test_before_what_passes(plane: SockmapPlane, host: str, size: int) -> None:
    """What the kernel sends on it sends once."""
    first, second = told(1, 40_000), told(2, 20_000)
    with session(plane, host=host) as one:
        one.client.sendall(first)
        one.expect(one.server, first)
        repeat(one, first, size, second)
        one.expect(one.server, second)
        one.client.sendall(GAME)
        one.expect(one.server, GAME)
        assert not one.handed_back
        assert one.to_server.relayed == len(first) + len(second) + len(GAME)


@pytest.mark.parametrize("size", SIZES)
def test_before_what_is_left(plane: SockmapPlane, size: int) -> None:
    """What the kernel leaves to user space it leaves once, and goes on where that ends."""
    first, second = told(1, 40_000), told(2, 20_000)
    with session(plane) as one:
        one.to_server.stop()
        pump = one.pumps.pop(0)
        one.client.sendall(first)
        one.until(lambda: one.to_server.unread == len(first))
        repeat(one, first, size, second)
        one.until(lambda: one.to_server.unread >= len(first) + len(second))
        one.pumps.insert(0, pump)
        one.expect(one.server, first + second)
        one.until(lambda: not one.to_server.ours)
        repeat(one, second, size // 2, GAME)
        one.expect(one.server, GAME)
        assert one.to_server.relayed == len(GAME)
        assert one.to_server.size == len(first) + len(second) + len(GAME)


@pytest.mark.parametrize("more", [b"", GAME])
@pytest.mark.parametrize("is_ours", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_before_the_end(plane: SockmapPlane, size: int, is_ours: bool, more: bytes) -> None:
    """A stream's end that comes in one segment with a repetition is the end, and nothing is lost."""
    first = told(1, 40_000)
    with session(plane) as one:
        one.client.sendall(first)
        one.expect(one.server, first)
        if is_ours:
            one.to_server.stop()
        one.client = set_back(one.client, size)
        one.client.sendall(first[len(first) - size :] + more, socket.MSG_MORE)
        one.client.shutdown(socket.SHUT_WR)
        one.expect(one.server, more)
        one.expect_end(one.server)
        assert one.to_server.size == len(first) + len(more)


@pytest.mark.parametrize("size", SIZES)
def test_of_what_user_space_has_read(plane: SockmapPlane, size: int) -> None:
    """What was read before a session is handed over does not come again."""
    first, second = told(1, 40_000), told(2, 20_000)
    with session(plane, early=first) as one:
        repeat(one, first, size, second)
        one.expect(one.server, second)
        assert one.to_server.relayed == len(second)


def test_at_random(plane: SockmapPlane) -> None:
    """However much is repeated, and whoever has a lane meanwhile, each byte arrives once."""
    chance = random.Random(1)
    with session(plane) as one:
        sent = b""
        for number in range(150):
            more = told(number, int(chance.choice([6, 100, 5000, 60_000]) * chance.uniform(1, 2)))
            if chance.random() < 0.3:
                one.to_server.stop()
            if chance.random() < 0.7:
                repeat(one, sent, chance.randint(0, min(len(sent), 60_000)), more)
            else:
                one.client.sendall(more)
            if chance.random() < 0.5:
                one.step()
            one.expect(one.server, more)
            sent = more
        assert 0 < one.to_server.relayed < one.to_server.size


def test_what_does_not_come_next(plane: SockmapPlane) -> None:
    """Bytes that are not those that come next, which TCP does not let come, pass nowhere: the connection is broken."""
    with session(plane) as one:
        one.client.sendall(GAME)
        one.expect(one.server, GAME)
        lane = one.to_server
        lane._record.next -= 1
        one.pumps.clear()
        one.client.sendall(GAME)
        one.until(lambda: lane.ours)
        assert lane.stopped is Stop.LOST
        with pytest.raises(ConnectionAbortedError):
            lane.read(99)
        assert not lane.resume()
        for _ in range(3):
            one.client.sendall(GAME)
        assert plane._ring.take() == []  # it was told once
        one.expect_nothing(one.server)
        with pytest.raises(ConnectionAbortedError):
            lane.recv_into(memoryview(bytearray(99)))
