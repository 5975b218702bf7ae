"""Whether the kernel can relay here, and if not, why."""

from __future__ import annotations

import errno
import platform
import re
import select
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from gameproxy.framing import FORMATS, FrameScanner
from gameproxy.relay.sockmap import tcp
from gameproxy.relay.sockmap.kernel import CALL_NUMBERS
from gameproxy.relay.sockmap.pair import Way
from gameproxy.relay.sockmap.plane import NotTaken, SockmapPlane

OLDEST_LINUX: Final = (5, 19)
"""bpf_loop is of 5.17; since 5.19 who has a map may use it when it has given up its privileges."""
_CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_PERFMON": 38, "CAP_BPF": 39}
_TYPES: Final = Path("/sys/kernel/btf/vmlinux")
_LOCKDOWN: Final = Path("/sys/kernel/security/lockdown")
_LONGEST_TRIAL: Final = 5000  # ms


class Unavailable(Exception):
    """The kernel cannot relay here; the text says why, in one sentence."""


def load(pairs: int) -> SockmapPlane:
    """Load the program, with room for so many pairs, and see on loopback that it relays.

    :raises Unavailable: it cannot be loaded, or does not do what it should.
    """
    if (why := _what_is_missing()) is not None:
        raise Unavailable(why)
    try:
        plane = SockmapPlane(pairs)
    except OSError as error:
        raise Unavailable(_why_refused(error)) from error
    try:
        _try(plane)
    except (OSError, NotTaken) as error:
        plane.close()
        raise Unavailable(f"The program is loaded, but does not relay: {error}.") from error
    return plane


def why_not() -> str | None:
    """Why the kernel cannot relay here, in one sentence; ``None`` if it can. Tries it, in some 20 ms."""
    try:
        load(1).close()
    except Unavailable as unavailable:
        return str(unavailable)
    return None


def _what_is_missing() -> str | None:
    if sys.platform != "linux":
        return "Sockets are relayed by the kernel on Linux only."
    if platform.machine() not in CALL_NUMBERS:
        return f"The number of bpf(2) on {platform.machine()} is not known."
    release = platform.release()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST_LINUX:
        return f"Linux {release} is too old: {'.'.join(map(str, OLDEST_LINUX))} is needed."
    if lacking := _lacking():
        return f"The process lacks {' and '.join(lacking)}."
    if not _TYPES.exists():
        return f"The kernel does not describe its types ({_TYPES} is missing)."
    return None


def _lacking() -> list[str]:
    """The capabilities that are missing (capabilities(7))."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.M)
    effective = int(found[1], 16) if found else 0
    return [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]


def _why_refused(error: OSError) -> str:
    if error.errno == errno.EPERM and _LOCKDOWN.exists():
        return f"The kernel forbids loading the program; lockdown: {_LOCKDOWN.read_text().strip()}."
    return f"The kernel does not load the program: {error.strerror}."


def _try(plane: SockmapPlane) -> None:
    """Have a frame passed on each way."""
    format = FORMATS["int32"]
    with ExitStack() as sockets:
        ends = []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as listening:
                outer = sockets.enter_context(socket.create_connection(listening.getsockname()))
                inner = sockets.enter_context(listening.accept()[0])
            inner.setblocking(False)
            ends.append((outer, inner))
        (client, from_client), (server, from_server) = ends
        pair = plane.add(
            format,
            Way(from_client, FrameScanner(format, None)),
            Way(from_server, FrameScanner(format, None)),
        )
        try:
            for sender, receiver in ((client, server), (server, client)):
                frame = format.encode(b"\x10")
                sender.sendall(frame)
                if not _readable(receiver) or receiver.recv(len(frame)) != frame:
                    raise OSError("a frame did not arrive")
            if pair.from_client.relayed != tcp.received(from_client).size:
                raise OSError("a frame was not counted")
        finally:
            pair.close()


def _readable(one: socket.socket) -> bool:
    poll = select.poll()
    poll.register(one, select.POLLIN)
    return bool(poll.poll(_LONGEST_TRIAL))
