"""gameproxy.supervisor: telling systemd"""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from gameproxy.supervisor import READY, tell_supervisor


@pytest.mark.parametrize("abstract", [False, True])
def test_told(tmp_path: Path, abstract: bool) -> None:
    """It is told at a socket in the file system or at an abstract one, all in one datagram."""
    name = f"{tmp_path}/notify"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind(f"\0{name}" if abstract else name)
        listener.setblocking(False)
        address = f"@{name}" if abstract else name
        assert tell_supervisor({"NOTIFY_SOCKET": address}, READY, "STATUS=well")
        assert listener.recv(100) == b"READY=1\nSTATUS=well"


def test_nobody() -> None:
    """Where nobody is to be told nothing happens."""
    assert not tell_supervisor({}, READY)
    assert not tell_supervisor({"NOTIFY_SOCKET": ""}, READY)
    assert not tell_supervisor({"NOTIFY_SOCKET": "vsock:2:1"}, READY)


def test_cannot(tmp_path: Path) -> None:
    """Who is not there cannot be told; who does not listen does not hold this program up."""
    with pytest.raises(OSError, match="No such file"):
        tell_supervisor({"NOTIFY_SOCKET": str(tmp_path / "gone")}, READY)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as deaf:
        path = os.fspath(tmp_path / "deaf")
        deaf.bind(path)
        with pytest.raises(BlockingIOError):
            for _ in range(10_000):
                tell_supervisor({"NOTIFY_SOCKET": path}, READY)
