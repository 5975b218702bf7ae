"""What a program tells whoever started it of how it stands: systemd, for units of ``Type=notify`` (sd_notify(3))."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final

READY: Final = "READY=1"
"""It serves."""
STOPPING: Final = "STOPPING=1"
"""It was told to stop, and does not serve any more."""


def tell_supervisor(environment: Mapping[str, str], *facts: str) -> bool:
    """Tell it.

    :param environment: that of the program, which names a socket as ``NOTIFY_SOCKET`` if there is somebody to tell.
    :param facts: such as :data:`READY` or ``STATUS=...``, each a line.
    :return: whether there was.
    :raises OSError: it could not be told.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # an abstract one (unix(7))
        address = f"\0{address[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.setblocking(False)
        told.sendto("\n".join(facts).encode("utf-8"), address)
    return True
