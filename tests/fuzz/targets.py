"""What is fuzzed: functions of bytes that raise for a bug, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.fuzz import client, framing, handshake, messages, proxy_header

TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "framing": framing.target,
    "messages": messages.target,
    "client": client.target,
    "handshake": handshake.target,
    "proxy_header": proxy_header.target,
}
CORPORA: Final = Path(__file__).with_name("corpora")
"""For each of them a folder of inputs that reach what there is to reach, as few as do."""
