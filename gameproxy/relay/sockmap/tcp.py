"""What Linux tells of a TCP connection (``struct tcp_info`` of linux/tcp.h, and ioctl(2) of tcp(7))."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from typing import Final, NamedTuple

_SO_COOKIE: Final = 57
_INFO: Final = struct.Struct("=B119xQQ")  # tcpi_state, tcpi_bytes_acked, tcpi_bytes_received
_INT: Final = struct.Struct("=i")
_TRIES: Final = 16
_CLOSED: Final = 7
_ENDED: Final = frozenset((6, 8, 9, 11))
"""TIME_WAIT, CLOSE_WAIT, LAST_ACK and CLOSING: the peer has ended its stream."""


class Received(NamedTuple):
    """How much has come on a connection.

    :param size: bytes in all.
    :param ended: whether the end has come, in order or by a reset.
    """

    size: int
    ended: bool


def cookie(connection: socket.socket) -> int:
    """The number that the kernel has given to this socket, and gives to no other."""
    return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), "little")


def _info(connection: socket.socket) -> tuple[int, int, int]:
    found = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    state, acked, received = _INFO.unpack(found)
    return state, acked, received


def received(connection: socket.socket) -> Received:
    """How much has come. The socket's lock is taken on the way: a program that runs under it has ended after this."""
    state, _, size = _info(connection)
    return Received(size - (state in _ENDED), state in _ENDED or state == _CLOSED)


def waiting(connection: socket.socket) -> int:
    """Bytes that have come and were not read; of a socket that is in no map."""
    size: int = _INT.unpack(fcntl.ioctl(connection, termios.FIONREAD, bytes(_INT.size)))[0]
    return size


def written(connection: socket.socket) -> int | None:
    """Bytes that TCP has ever taken for sending; only differences mean something.

    :return: ``None`` if the peer's acknowledgements came too fast to tell.
    """
    for _ in range(_TRIES):
        _, acked, _ = _info(connection)
        (unacked,) = _INT.unpack(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(_INT.size)))
        if _info(connection)[1] == acked:
            return acked + int(unacked)
    return None
