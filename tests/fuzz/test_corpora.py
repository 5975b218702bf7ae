"""The inputs that fuzzing has found to reach something: all are as they should be, and bugs do not get past them."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

import pytest

from gameproxy import handshake, messages, proxy_header, strict_json
from gameproxy.client_side import ClientSide, EarlyBytes
from gameproxy.dialect import Dialect
from gameproxy.framing import Framer, FrameScanner
from gameproxy.handshake import ProxyHandshake
from gameproxy.proxied import ProxiedFactory
from gameproxy.server_side import ServerSide
from tests.fuzz.targets import CORPORA, TARGETS

BUGS: list[tuple[str, Any, str, str, str]] = [
    (
        "framing",
        Framer,
        "_read_header",
        "header[1] > self.max_body",
        "header[1] > 1 + self.max_body",
    ),
    ("framing", Framer, "_read_header", "len(self._chunks) > 1", "False"),
    ("framing", Framer, "_peek", "self._chunks, 1", "self._chunks, 0"),
    ("framing", Framer, "take_rest", "self._header = None", "pass"),
    ("framing", FrameScanner, "scan", "if body_at == size:", "if body_at == size - 1:"),
    ("framing", FrameScanner, "scan", "bytes(data[at:])", "bytes(data)"),
    ("framing", FrameScanner, "_collect", "at + self._missing", "at + self._missing + 1"),
    ("framing", FrameScanner, "skip", "self.remaining = remaining", "self.remaining = 0"),
    ("messages", strict_json, "decode_object", "_after_white(text, end) != len(text)", "False"),
    ("messages", strict_json, "decode_object", "_nests_deeper(value, DEPTH_MAX)", "False"),
    ("messages", messages, "_properties", "> PROPERTIES_MAX", "> 2 * PROPERTIES_MAX"),
    ("messages", messages, "_properties", "not is_portable(value, PROPERTIES_DEPTH)", "False"),
    ("messages", messages, "text_of_member", "if key == name", "if True"),
    ("messages", messages, "_seconds", "and value >= 0", ""),
    ("messages", Dialect, "_fitting", "message[: too_long - 1]", "message[:too_long]"),
    ("client", ClientSide, "_forget_early", "self._early_size = 0", "pass"),
    ("client", ClientSide, "_keep", "> EARLY_MAX", "> 2 * EARLY_MAX"),
    ("client", ClientSide, "_keep", "self._scanner.stopped is not None", "False"),
    ("client", ClientSide, "data_received", "self._framer.take_rest()", "b''"),
    ("client", EarlyBytes, "take", "if size > self._left", "if False"),
    ("handshake", handshake, "_check_mac", "not hmac.compare_digest(", "not len("),
    ("handshake", ProxyHandshake, "_check", "admitted.session != self._admit.session", "False"),
    ("handshake", ProxyHandshake, "receive", "if not self._challenged", "if body[0] == 7"),
    ("handshake", ServerSide, "_succeed", "self._stop_deadline()", "pass"),
    ("handshake", ServerSide, "hand_over", "self._framer.take_rest()", "b''"),
    ("proxy_header", proxy_header, "_read_v2", "data[end:]", "data[end + 1 :]"),
    ("proxy_header", proxy_header, "_read_v2", "if end > V2_MAX", "if False"),
    ("proxy_header", proxy_header, "_read_v1", '"%" in hosts[0] + hosts[1]', "False"),
    ("proxy_header", proxy_header, "_text", "ip.ipv4_mapped is not None", "False"),
    ("proxy_header", ProxiedFactory, "forget", "self._room.expect_no_more()", "pass"),
]
"""Of which target; where, and in which function, what stands instead of what."""


def inputs(name: str) -> list[bytes]:
    """The corpus of a target."""
    return [path.read_bytes() for path in sorted((CORPORA / name).iterdir())]


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    """What was found once is right: nothing of it raises."""
    found = inputs(name)
    assert len(found) > 10
    for data in found:
        TARGETS[name](data)


@pytest.mark.parametrize(("name", "owner", "function", "safeguard", "instead"), BUGS)
def test_bugs_are_found(
    name: str,
    owner: Any,
    function: str,
    safeguard: str,
    instead: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With any of some safeguards taken out, an input of the corpus raises: target and corpus would notice."""
    right = getattr(owner, function)
    source = textwrap.dedent(inspect.getsource(right))
    assert source.count(safeguard) == 1
    changed: dict[str, Any] = {}
    later = "from __future__ import annotations\n"
    exec(later + source.replace(safeguard, instead), right.__globals__, changed)
    monkeypatch.setattr(owner, function, changed[function])
    found = inputs(name)
    with pytest.raises(Exception):  # noqa: B017  # what it raises depends on the bug
        for data in found:
            TARGETS[name](data)
