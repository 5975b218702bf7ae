"""Rows that somebody wrote or deleted by hand in the farm's tables: bans, slots and game servers."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted

from tests.real.rig import (
    Rig,
)
from tests.real.streams import (
    WELCOME,
    auth,
    pause,
    promptly,
)


@pytest_twisted.ensureDeferred
async def test_rows_deleted(tmp_path: Path) -> None:
    """Rows that somebody deletes or spoils by hand end no session that relays, and none stays behind."""
    async with Rig(tmp_path, queue_timeout=0.6) as rig, rig.canary(lines=20) as canary:
        leaving = await rig.join(name="leaving")
        rig.query("DELETE FROM slots WHERE player = 'guest:leaving'")
        await canary.echo(b"\x10during")
        await leaving.echo(b"\x10during")
        await rig.leave(leaving)
        rig.query("UPDATE game_servers SET state = 'nonsense', host = 5, port = 'x'")
        client = await rig.connect()
        client.send(auth(game="echo"))
        await client.rest()
        assert (await rig.end()).reason in ("no_server", "queue_timeout")
        await canary.echo(b"\x10during")


NO_BANS = [
    ("address", "not an address"),
    ("address", "10.0.0.0/999"),
    ("address", "127.0.0.1/8/8"),
    ("address", ""),
    ("player", ""),
    ("nobody", "guest:mallory"),
    ("address", b"\xff\x00"),
    ("player", 5),
]


@pytest_twisted.ensureDeferred
async def test_bans_that_are_none(tmp_path: Path) -> None:
    """Bans that somebody wrote wrongly ban nobody, and stop nobody's way."""
    async with Rig(tmp_path) as rig, rig.canary(lines=20):
        for kind, subject in NO_BANS:
            rig.query(
                "INSERT INTO bans (kind, subject, expires_at) VALUES (?, ?, 'soon')", kind, subject
            )
        client = await rig.connect()
        client.send(auth(game="echo"))
        await client.message(WELCOME)
        await pause(0.8)  # a look at the farm comes every 0.75 s
        await client.echo(b"\x10still here")
        await rig.leave(client)


@pytest.mark.parametrize("subject", ["127.0.0.1", "127.0.0.0/8"])
@pytest_twisted.ensureDeferred
async def test_banned_address(tmp_path: Path, subject: str) -> None:
    """Who comes from a banned address is told so before AUTH; who relays from there ends within a second."""
    async with Rig(tmp_path) as rig:
        relaying = await rig.join()
        rig.query("INSERT INTO bans (kind, subject) VALUES ('address', ?)", subject)
        with promptly():
            assert await rig.closed(relaying, "banned") == []
        await rig.over("banned")
        client = await rig.connect()
        with promptly():
            await rig.refused(client, "banned")
