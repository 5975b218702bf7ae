"""Connections that are set back, so that they repeat what they have sent (tcp(7) and linux/tcp.h: TCP_REPAIR).

TCP does so by itself when it thinks that something was lost: what it then sends in one piece may begin with what has
arrived, and go on with what has not.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time

_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQ = 19, 20, 21
_REPAIR_OPTIONS, _TIMESTAMP, _REPAIR_WINDOW = 22, 24, 29
_ON, _OFF_AND_SILENT = 1, -1
_RECEIVED, _SENT = 1, 2
_OPTION_MSS, _OPTION_SCALES, _OPTION_SACK, _OPTION_TIMESTAMPS = 2, 3, 4, 8
_HAS_TIMESTAMPS = 1
_NUMBER, _OPTION, _WINDOW = struct.Struct("=I"), struct.Struct("=II"), struct.Struct("=5I")
_NOW, _WIDEST = 1, 2
_LONGEST_SEGMENT = 32_767
_LONGEST_WAIT = 10.0


def set_back(connection: socket.socket, size: int) -> socket.socket:
    """The same connection, ``size`` bytes earlier: what is sent next begins with so many that its peer has had.

    Needs CAP_NET_ADMIN.

    :param connection: all that it has sent has arrived, and all that it has received was read. It is closed.
    """
    end = time.monotonic() + _LONGEST_WAIT
    while _unsent(connection):
        assert time.monotonic() < end, "what was sent does not arrive"
        time.sleep(0.001)
    tcp = socket.IPPROTO_TCP
    connection.setsockopt(tcp, _REPAIR, _ON)
    numbers = {}
    for queue in (_RECEIVED, _SENT):
        connection.setsockopt(tcp, _REPAIR_QUEUE, queue)
        numbers[queue] = connection.getsockopt(tcp, _QUEUE_SEQ)
    info = connection.getsockopt(tcp, socket.TCP_INFO, 8)
    options, scales = info[5], info[6]
    segment = connection.getsockopt(tcp, socket.TCP_MAXSEG)
    stamp = connection.getsockopt(tcp, _TIMESTAMP)
    window = [*_WINDOW.unpack(connection.getsockopt(tcp, _REPAIR_WINDOW, _WINDOW.size))]
    # The widest window that the peer has had: a segment is as long as half of it at most.
    window[_WIDEST] = max(*window[_NOW : _WIDEST + 1], 2 * segment)
    own, peer = connection.getsockname(), connection.getpeername()
    family = connection.family
    connection.close()  # silently, as it is being repaired

    again = socket.socket(family)
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    again.setsockopt(tcp, _REPAIR, _ON)
    again.setsockopt(tcp, socket.TCP_MAXSEG, _LONGEST_SEGMENT)  # without it 536 bytes at first
    again.bind(own)
    for queue, number in ((_RECEIVED, numbers[_RECEIVED]), (_SENT, numbers[_SENT] - size)):
        again.setsockopt(tcp, _REPAIR_QUEUE, queue)
        again.setsockopt(tcp, _QUEUE_SEQ, _NUMBER.pack(number & 0xFFFFFFFF))
    again.connect(peer)
    agreed = [
        (_OPTION_MSS, segment),
        (_OPTION_SCALES, (scales & 15) | (scales >> 4) << 16),
        (_OPTION_SACK, 0),
    ]
    if options & _HAS_TIMESTAMPS:
        agreed.append((_OPTION_TIMESTAMPS, 0))
    again.setsockopt(tcp, _REPAIR_OPTIONS, b"".join(_OPTION.pack(*one) for one in agreed))
    again.setsockopt(tcp, _REPAIR_WINDOW, _WINDOW.pack(*window))
    if options & _HAS_TIMESTAMPS:
        again.setsockopt(tcp, _TIMESTAMP, _NUMBER.pack(stamp & 0xFFFFFFFF))
    again.setsockopt(tcp, _REPAIR, _OFF_AND_SILENT)
    again.setsockopt(tcp, socket.TCP_NODELAY, 1)
    return again


def _unsent(connection: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), "little")
