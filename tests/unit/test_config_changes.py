"""gameproxy.config_changes: what is different, and what of that cannot change"""

from __future__ import annotations

from pathlib import Path

import pytest

from gameproxy.config import Config, parse
from gameproxy.config_changes import FIXED_MESSAGE, changes_between, fixed_changes

BEFORE = """
[proxy]
listen = ["tcp:7777"]
[auth]
ticket_keys = [{ id = "web", algorithm = "EdDSA", file = "web.pem" }]
[limits.frames_per_second]
mode = "dry_run"
rate = 60
[[games]]
name = "chess"
command = ["chessd"]
capacity = 2
max_servers = 3
[[games]]
name = "go"
command = ["god"]
capacity = 2
max_servers = 3
[[servers]]
id = "s.1"
game = "go"
host = "192.0.2.1"
port = 5000
capacity = 9
"""


def configured(*edits: tuple[str, str], more: str = "", folder: str = "/x") -> Config:
    """The configuration, edited."""
    text = BEFORE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    return parse(text + more, folder)


def told(new: Config) -> list[str]:
    """What has changed, for people."""
    return [str(change) for change in changes_between(configured(), new)]


def test_nothing() -> None:
    """What is only written in another way or order is no change; nor is a default that is written down."""
    first, rest = BEFORE.split("[[games]]\n", 1)
    chess, go = rest.split("[[games]]\n", 1)
    go, servers = go.split("[[servers]]")
    text = f"{first}[[games]]\n{go}[[games]]\n{chess}[[servers]]{servers}[log]\njson_file = ''\n"
    assert changes_between(configured(), parse(text, "/x")) == []


def test_changes() -> None:
    """Keys are told with both values; entries of arrays by their names, whatever their order."""
    assert told(
        configured(
            ("rate = 60", "rate = 90.5\nburst = 100"), ('["tcp:7777"]', "['tcp:1', 'unix:é']")
        )
    ) == [
        'proxy.listen: ["tcp:7777"] -> ["tcp:1", "unix:\\u00e9"]',
        "limits.frames_per_second.rate: 60.0 -> 90.5",
        "limits.frames_per_second.burst: 100.0, new",
    ]
    chess = '[[games]]\nname = "chess"\ncommand = ["chessd"]\ncapacity = 2\nmax_servers = 3\n'
    changed = told(
        configured(
            (chess, ""), ("capacity = 2", "capacity = 4"), ('"s.1"', '"s.2"'), ("web.pem", "w.pem")
        )
    )
    assert changed[:2] == [
        'auth.ticket_keys.web.file: "web.pem" -> "w.pem"',
        "games.chess: no more",
    ]
    assert changed[2] == "games.go.capacity: 2 -> 4"
    assert changed[3] == 'servers."s.1": no more'
    assert changed[4].startswith('servers."s.2": {"id": "s.2", "game": "go"')
    assert changed[4].endswith("..., new")


@pytest.mark.parametrize(
    ("more", "edits", "places"),
    [
        (
            "",
            (
                (
                    '["tcp:7777"]',
                    '[]\ndatabase = "sqlite:///other.db"\nsecret_file = "o"\nrelay = "epoll"',
                ),
            ),
            ["proxy.database", "proxy.secret_file", "proxy.relay"],
        ),
        (
            '[framing]\nformat = "int16"\nmax_frame = 1000\n',
            (),
            ["framing.format", "framing.max_frame"],
        ),
        (
            '[dialect]\nclient = "preamble"\nadmission = "none"\n',
            (),
            ["dialect.client", "dialect.admission"],
        ),
        (
            '[admin]\nlisten = "unix:x"\n[log]\njson_file = "x"\n',
            (),
            ["admin.listen", "log.json_file"],
        ),
    ],
)
def test_fixed(more: str, edits: tuple[tuple[str, str], ...], places: list[str]) -> None:
    """What a proxy stays with until it ends is told, each with its place."""
    more += '[tls]\nlisten = ["tcp:1"]\ncertificate = "a"\nkey = "b"\n'
    assert fixed_changes(configured(), configured(*edits, more=more)) == [
        (place, FIXED_MESSAGE) for place in places
    ]


def test_folder() -> None:
    """Nor can the folder change, in which the database and the games are."""
    assert fixed_changes(configured(), configured(folder="/y")) == [("folder", FIXED_MESSAGE)]
    here = configured(folder=str(Path.cwd()))
    assert fixed_changes(configured(folder=""), here) == []
