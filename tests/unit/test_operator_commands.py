"""``status``, ``farm``, ``ban``, ``unban``, ``bans`` and ``kick``, on a database that proxies under a clock use too."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import sqlite3
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.cli import asking, bans, farm_database, status
from gameproxy.cli.farm_database import reading, writing
from gameproxy.cli.reporting import CommandFailed, duration, moment
from gameproxy.control import control_path
from gameproxy.farm import GameFarm, LinuxProcesses
from gameproxy.farm.upgrades import SCHEMA_VERSION
from tests.commands import run
from tests.farm_fixture import World

CONFIG = """
[[games]]
name = "chess"
command = ["chessd"]
capacity = 2
max_servers = 2
[[servers]]
id = "s1"
game = "chess"
host = "127.0.0.1"
port = 4001
capacity = 2
"""
ESCAPE = "\x1b[2J\u202e[bold]"
FACTS = {
    "sessions": {"total": 3, "by_state": {"relaying": 2, "expecting": 1}, "by_relay": {"epoll": 2}},
    "relay": {"configured": "auto", "sockmap": "on"},
    "limits": {"max_sessions": 10},
}


class Answering:
    """A control socket that always says the same, or nothing.

    :ivar requests: the lines that came.
    """

    def __init__(self, path: Path, *answers: bytes) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self.requests: list[bytes] = []
        self._answers = answers
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        if answers:
            threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._socket.accept()
            with connection:
                self.requests.append(connection.recv(65536))
                connection.sendall(answer)
                if len(answer) > asking.ANSWER_MAX:
                    connection.recv(1)  # until the other one has had enough


def line(**answer: object) -> bytes:
    return json.dumps(answer).encode() + b"\n"


class CommandTestCase(SynchronousTestCase):
    """A farm with one listed game server, its configuration, and no proxy yet."""

    def setUp(self) -> None:
        folder = TemporaryDirectory(prefix="gp")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.file = self.folder / "gameproxy.toml"
        self.file.write_text(CONFIG)
        self.database = self.folder / "farm.db"
        chess = {"name": "chess", "command": ["chessd"], "capacity": 2, "max_servers": 2}
        server = {"id": "s1", "game": "chess", "host": "127.0.0.1", "port": 4001, "capacity": 2}
        self.world = World(self.database, games=[chess], servers=[server])
        self.world.reactor.rightNow = time.time()

    def gameproxy(self, *arguments: str) -> tuple[int, str, str]:
        return run(*arguments, "--config", str(self.file))

    def document(self, *arguments: str) -> Any:
        exit_status, output, errors = self.gameproxy(*arguments, "--json")
        self.assertEqual((exit_status, errors), (0, ""))
        return json.loads(output)

    def fails(self, *arguments: str) -> str:
        """What a command that fails says, without a word on standard output."""
        exit_status, output, errors = self.gameproxy(*arguments)
        self.assertEqual((exit_status, output), (1, ""))
        return errors

    def wrong(self, *arguments: str) -> str:
        """What is said of wrong usage."""
        exit_status, output, errors = self.gameproxy(*arguments)
        self.assertEqual((exit_status, output), (2, ""))
        return errors

    def answering(self, farm: GameFarm, *answers: bytes) -> Answering:
        found = Answering(control_path(self.database, farm.proxy), *answers)
        self.addCleanup(found.close)
        return found

    def reachable(self) -> GameFarm:
        """A proxy whose row names this process, so that a command takes it for a living one."""
        farm = self.world.proxy()
        me = LinuxProcesses().me()
        self.world.sql(
            "UPDATE proxies SET pid = ?, process_started = ?, place = ? WHERE id = ?",
            me.pid,
            me.started,
            me.place,
            farm.proxy,
        )
        return farm


class Database(CommandTestCase):
    """What commands do with the database."""

    EACH = (
        ("status",),
        ("farm",),
        ("farm", "list"),
        ("farm", "start", "chess"),
        ("farm", "drain", "s1"),
        ("farm", "stop", "s1"),
        ("ban", "ana"),
        ("unban", "ana"),
        ("bans",),
        ("kick", "ana"),
    )

    def test_absent(self) -> None:
        """No command makes a database that is not there."""
        for arguments in self.EACH:
            self.assertIn("there is no such database", self.fails(*arguments))
            self.assertFalse(self.database.exists())

    def test_other_versions(self) -> None:
        """A newer schema, and one that is older, is refused, and stays as it is."""
        self.world.proxy()
        for version, advice in (
            (SCHEMA_VERSION + 1, "install a newer gameproxy"),
            (SCHEMA_VERSION - 1, "start a proxy"),
        ):
            self.world.sql(f"PRAGMA user_version = {version}")
            for arguments in self.EACH:
                self.assertIn(advice, self.fails(*arguments))
        self.assertEqual(self.world.sql("SELECT * FROM bans"), [])

    def test_no_database(self) -> None:
        """A file that is no database is told as that."""
        self.database.write_text("no database" * 1000)
        for arguments in self.EACH:
            self.assertIn("file is not a database", self.fails(*arguments))

    def test_reading_writes_nothing(self) -> None:
        """What only shows can be had while somebody else writes, and could not write."""
        self.world.proxy()
        writer = sqlite3.connect(self.database, isolation_level=None)
        self.addCleanup(writer.close)
        writer.execute("BEGIN IMMEDIATE")
        for arguments in (("status",), ("farm",), ("bans",)):
            self.document(*arguments)
        with (
            self.assertRaises(CommandFailed) as raised,
            reading(self.database) as cursor,
        ):
            cursor.execute("DELETE FROM bans")
        self.assertIn("readonly", str(raised.exception))

    def test_locked(self) -> None:
        """A database that stays locked is told as that, and nothing is half done."""
        self.world.proxy()
        self.patch(farm_database, "BUSY_TIMEOUT", 0.01)
        writer = sqlite3.connect(self.database, isolation_level=None)
        self.addCleanup(writer.close)
        writer.execute("BEGIN IMMEDIATE")
        for arguments in (("ban", "ana"), ("kick", "ana", "--for", "9"), ("farm", "drain", "s1")):
            self.assertIn("database is locked", self.fails(*arguments))
        writer.execute("ROLLBACK")
        self.assertEqual(self.world.sql("SELECT * FROM bans"), [])

    def test_waits(self) -> None:
        """A database that is locked for a moment is waited for."""
        self.world.proxy()
        writer = sqlite3.connect(self.database, isolation_level=None, check_same_thread=False)
        self.addCleanup(writer.close)
        writer.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.1, writer.execute, ["ROLLBACK"])
        timer.start()
        self.addCleanup(timer.join)
        self.document("ban", "ana")

    def test_nobody_between(self) -> None:
        """From its beginning on nobody else writes into a transaction that may write: what it reads holds."""
        self.world.proxy()
        other = sqlite3.connect(self.database, isolation_level=None, timeout=0)
        self.addCleanup(other.close)
        with writing(self.database) as cursor:
            cursor.execute("SELECT count(*) FROM bans")
            self.assertRaises(sqlite3.OperationalError, other.execute, "BEGIN IMMEDIATE")

    def test_bad_configuration(self) -> None:
        """A configuration that cannot be used is told, escaped."""
        self.file.write_text(f'{CONFIG}"\\u001b" = 1')
        self.assertNotIn("\x1b", self.fails("status"))


class Documentation(CommandTestCase):
    """docs/farm, "Commands"."""

    def test_usage(self) -> None:
        """What the page says can be typed can: each fails for want of a database, none for its usage."""
        page = (Path(__file__).parents[2] / "docs" / "farm.md").read_text("utf-8")
        section = page.split("## Commands")[1].split("### ")[0]
        cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        typed = re.findall("`(.*?)`", " ".join(cells))
        self.assertEqual(len(typed), 12)
        for text in typed:
            words = text.replace("[player]", "player").replace("ADDRESS", "10.0.0.0/8").split()
            self.assertIn("no such database", self.fails(*words))


class Bans(CommandTestCase):
    """``ban``, ``unban`` and ``bans``."""

    def test_every_proxy_within_a_second(self) -> None:
        """A ban ends live sessions at all proxies within a second, and nobody else's; a kick does too."""
        one, two = self.world.proxy(), self.world.proxy()
        for farm in (one, two):
            for player in ("ana", "bob"):
                self.world.client(farm, player=player, mechanism="guest")
        self.document("ban", "ana", "--for", "1h")
        self.world.reactor.pass_time(1.0)
        self.assertEqual(self.world.evicted, [("s1", "banned"), ("s3", "banned")])
        self.world.evicted.clear()
        self.assertEqual(self.document("kick", "bob")["sessions"], 2)
        self.world.reactor.pass_time(1.0)
        self.assertEqual(self.world.evicted, [("s2", "kicked"), ("s4", "kicked")])

    def test_addresses(self) -> None:
        """Sessions from a banned network end; who is not in it stays."""
        farm = self.world.proxy()
        self.world.client(farm, address="192.0.2.7")
        self.world.client(farm, address="198.51.100.1")
        self.document("ban", "address", "192.0.2.0/24")
        self.world.reactor.pass_time(1.0)
        self.assertEqual(self.world.evicted, [("s1", "banned")])

    def test_row(self) -> None:
        """A ban has a reason, an actor, and an end, or none; that is what is printed and listed."""
        self.world.proxy()
        before = time.time()
        ban = self.document("ban", "player", "ana", "--for", "90", "--reason", "loud")
        self.assertEqual(
            (ban["kind"], ban["subject"], ban["reason"]),
            ("player", "ana", "loud"),
        )
        self.assertEqual(ban["actor"], f"operator {getpass.getuser()}")
        self.assertTrue(before <= ban["created_at"] == ban["expires_at"] - 90 <= time.time())
        self.assertIsNone(self.document("ban", "address", "10.1.2.3/8")["expires_at"])
        bans = self.document("bans")["bans"]
        self.assertEqual([b["subject"] for b in bans], ["10.0.0.0/8", "ana"])
        self.assertEqual(bans[1], ban)
        _, output, _ = self.gameproxy("bans")
        self.assertRegex(output, r"address +10\.0\.0\.0/8 +for ever")
        self.assertRegex(output, r"player +ana +until \d{4}-.* +loud +operator ")

    def test_many(self) -> None:
        """Of very many bans people are shown some, and told so; programs get all."""
        self.world.proxy()
        self.patch(bans, "SHOWN_MAX", 2)
        for player in ("ana", "ben", "cleo"):
            self.assertNotIn("--json", self.gameproxy("bans")[1])
            self.document("ban", player)
        _, output, _ = self.gameproxy("bans")
        self.assertIn("ben", output)
        self.assertNotIn("cleo", output)
        self.assertIn("These are 2 of 3", output)
        self.assertEqual(len(self.document("bans")["bans"]), 3)

    def test_durations(self) -> None:
        """``--for`` takes seconds, or a number with a unit."""
        self.world.proxy()
        for number, (text, seconds) in enumerate(
            (("1.5", 1.5), ("2s", 2), ("3m", 180), ("4h", 14400), ("5d", 432000))
        ):
            ban = self.document("ban", f"p{number}", "--for", text)
            self.assertAlmostEqual(ban["expires_at"] - ban["created_at"], seconds, places=3)
        for text in ("0", "-1", "nan", "inf", "1e999", "x", "", "m", "3w"):
            self.assertIn("number of seconds", self.wrong("ban", "ana", f"--for={text}"))

    def test_longer_ban_stays(self) -> None:
        """A shorter ban does not end a longer one; the one that holds is told."""
        self.world.proxy()
        self.document("ban", "ana")
        self.assertIsNone(self.document("ban", "ana", "--for", "1")["expires_at"])
        _, output, _ = self.gameproxy("ban", "ana", "--for", "1")
        self.assertEqual(output, "player ana is banned for ever.\n")

    def test_lift(self) -> None:
        """A lifted ban is gone for all proxies; one that is not there cannot be lifted."""
        farm = self.world.proxy()
        self.document("ban", "ana")
        self.document("unban", "ana")
        self.assertEqual(self.world.client(farm, player="ana").reason, None)
        self.assertIn("is not banned", self.fails("unban", "ana"))
        self.assertIn("is not banned", self.fails("unban", "address", "10.0.0.0/8"))

    def test_lift_as_written_by_others(self) -> None:
        """A ban that somebody wrote with SQL is found in whatever form; others, and nonsense, stay."""
        self.world.proxy()
        for subject in (
            "10.1.2.3/8",
            " 10.0.0.0/8",
            "::ffff:10.0.0.0/104",
            "11.0.0.0/8",
            "x",
            b"\xff",
        ):
            self.world.sql("INSERT INTO bans (kind, subject) VALUES ('address', ?)", subject)
        self.world.sql("INSERT INTO bans (kind, subject) VALUES ('player', ?)", "E\u0301va")
        self.document("unban", "address", "10.9.9.9/8")
        self.document("unban", "\u00c9va")
        left = self.world.sql("SELECT subject FROM bans ORDER BY rowid")
        self.assertEqual(left, [("11.0.0.0/8",), ("x",), (b"\xff",)])

    def test_subjects(self) -> None:
        """Names and addresses are written as proxies compare them; what can be neither is wrong usage."""
        self.world.proxy()
        for words, subject in (
            (("E\u0301va",), "\u00c9va"),
            (("guest:E\u0301va",), "guest:\u00c9va"),
            (("player", "10.0.0.1"), "10.0.0.1"),
            (("address", "10.0.0.1/32"), "10.0.0.1"),
            (("address", "::ffff:10.0.0.2"), "10.0.0.2"),
            (("address", "2001:db8::1/64"), "2001:db8::/64"),
            (("address", "2001:DB8::1"), "2001:db8::1"),
            (("address", "2001:db8::1/32"), "2001:db8::/32"),
            (("player",), "player"),
        ):
            self.assertEqual(self.document("ban", *words)["subject"], subject)
        for words in (
            (),
            ("10.0.0.1",),
            ("0.0.0.0/0",),
            ("ana", "bob"),
            ("player", "ana", "bob"),
            ("address", "ana"),
            ("address", "fe80::1%\x1b"),
            ("\x1b",),
            ("x" * 65,),
            ("guest:",),
            ("\udc80",),
        ):
            self.assertNotIn("\x1b", self.wrong("ban", *words))
        self.assertIn("printable", self.wrong("ban", "ana", "--reason", "\x1b"))
        self.assertIn("200", self.wrong("ban", "ana", "--reason", "x" * 201))

    def test_unknown_operator(self) -> None:
        """Who has no name on this machine can ban."""
        self.world.proxy()

        def nobody() -> str:
            raise KeyError("uid")

        self.patch(getpass, "getuser", nobody)
        self.assertEqual(self.document("ban", "ana")["actor"], "operator unknown")


class Kicks(CommandTestCase):
    """``kick``."""

    def test_addresses(self) -> None:
        """Sessions from an address end; those of others, and of clients without an IP, stay."""
        farm = self.world.proxy()
        for address in ("192.0.2.7", "", "2001:db8::7"):
            self.world.client(farm, address=address)
        self.assertEqual(self.document("kick", "address", "192.0.2.0/24")["sessions"], 1)
        _, output, _ = self.gameproxy("kick", "address", "2001:db8::/32")
        self.assertEqual(
            output, "address 2001:db8::/32: 1 session will have ended within a second.\n"
        )
        self.world.reactor.pass_time(1.0)
        self.assertEqual(self.world.evicted, [("s1", "kicked"), ("s3", "kicked")])

    def test_nobody(self) -> None:
        """To kick somebody who is not here fails, without a ban."""
        self.world.proxy()
        self.assertIn("has no session", self.fails("kick", "ana"))
        self.assertEqual(self.document("bans")["bans"], [])

    def test_with_ban(self) -> None:
        """With ``--for`` they are banned too, here or not; the session's reason is kicked all the same."""
        farm = self.world.proxy()
        self.world.client(farm, player="ana")
        self.document("kick", "ana", "--for", "1h", "--reason", "loud")
        self.world.reactor.pass_time(1.0)
        self.assertEqual(self.world.evicted[0], ("s1", "kicked"))
        self.assertEqual(self.world.client(farm, player="ana").reason, "banned")
        self.assertEqual(self.document("kick", "bob", "--for", "1h")["sessions"], 0)
        reasons = {ban["subject"]: ban["reason"] for ban in self.document("bans")["bans"]}
        self.assertEqual(reasons, {"ana": "loud", "bob": ""})

    def test_reason_without_ban(self) -> None:
        """A reason without a ban would be lost: that is wrong usage."""
        self.world.proxy()
        self.assertIn("--for", self.wrong("kick", "ana", "--reason", "loud"))


class Servers(CommandTestCase):
    """``farm``."""

    def test_list(self) -> None:
        """The game servers and the sums are shown, alone or with ``list``, options before or after it."""
        farm = self.world.proxy()
        farm.relaying(self.world.client(farm).slots[0])
        self.world.reactor.settle()
        document = self.document("farm")
        self.assertEqual(document, self.document("farm", "list"))
        before = run("farm", "--json", "--config", str(self.file), "list")
        self.assertEqual(json.loads(before[1]), document)
        (server,) = document["servers"]
        self.assertEqual((server["id"], server["connections"], server["capacity"]), ("s1", 1, 2))
        self.assertEqual(
            document["farm"],
            {
                "servers": {"ready": 1},
                "connections": 1,
                "connections_added": 1,
                "connections_removed": 0,
                "reserved": 0,
            },
        )
        _, output, _ = self.gameproxy("farm")
        self.assertRegex(output, r"s1 +chess +ready +1 +0 +2 +1 +127\.0\.0\.1:4001")
        self.assertIn("1 ready. Sessions: 1 relaying (1 came, 0 went), 0 slots reserved.", output)
        self.world.sql("DELETE FROM game_servers")
        self.assertIn("There is no game server.", self.gameproxy("farm")[1])

    def test_drain(self) -> None:
        """A drained server takes nobody; to drain it again changes nothing, with no proxy running either."""
        farm = self.world.proxy()
        self.document("farm", "drain", "s1")
        self.world.reactor.pass_time(1.0)
        self.assertNotEqual(self.world.client(farm).server, "s1")
        farm.stop()
        self.world.reactor.settle()
        self.assertEqual(self.document("farm", "drain", "s1")["state"], "draining")
        self.world.sql("UPDATE game_servers SET state = 'lost'")
        self.document("farm", "drain", "s1")
        self.world.sql("UPDATE game_servers SET state = 'starting'")
        self.assertIn("is starting", self.fails("farm", "drain", "s1"))
        self.world.sql("UPDATE game_servers SET state = 'closed'")
        self.assertIn("has ended", self.fails("farm", "drain", "s1"))
        self.assertIn("no such game server", self.fails("farm", "drain", "s2"))

    def test_no_proxy(self) -> None:
        """Without a proxy nothing is started, and that is said."""
        farm = self.world.proxy()
        self.assertIn("no proxy runs", self.fails("farm", "start", "chess"))
        self.reachable()
        self.assertIn("cannot be asked", self.fails("farm", "start", "chess"))
        self.assertNotIn(farm.proxy, self.fails("farm", "start", "chess"))

    def started(self, server: str, proxy: str = "") -> None:
        """The row of a started game server."""
        self.world.sql(
            "INSERT INTO game_servers (id, game, state, capacity, proxy) "
            "VALUES (?, 'chess', 'ready', 2, ?)",
            server,
            proxy,
        )

    def test_start(self) -> None:
        """A proxy is asked to start one; what it says is told."""
        status_line = line(answer=FACTS)
        for answer, told in (
            (line(error="unknown_game", message="?"), "no running proxy starts"),
            (line(error="no_server", message="?"), "max_servers"),
            (line(error="internal", message=f"Failed. {ESCAPE}"), r"Failed. \x1b[2J\u202e[bold]"),
            (b"", "it may have done it"),
        ):
            farm = self.reachable()
            self.answering(farm, status_line, answer)
            self.assertIn(told, self.fails("farm", "start", "chess"))
            self.world.sql("DELETE FROM proxies")
        farm = self.reachable()
        proxy = self.answering(farm, status_line, line(answer={"server": "chess-1"}))
        self.assertEqual(self.document("farm", "start", "chess"), {"server": "chess-1"})
        self.assertEqual(json.loads(proxy.requests[1]), {"ask": "start", "game": "chess"})

    def test_start_elsewhere(self) -> None:
        """A proxy that does not know the game, and one that hangs, are passed over: one that can does it."""
        self.patch(asking, "STATUS_PATIENCE", 0.05)
        farms = sorted((self.reachable() for _ in range(3)), key=lambda farm: farm.proxy)
        self.answering(farms[0])
        self.answering(farms[1], line(answer={}), line(error="unknown_game", message="?"))
        self.answering(farms[2], line(answer={}), line(answer={"server": "chess-1"}))
        self.assertEqual(self.document("farm", "start", "chess"), {"server": "chess-1"})

    def test_stop(self) -> None:
        """The proxy that looks after a server is asked to stop it."""
        other, keeper = sorted((self.reachable() for _ in range(2)), key=lambda farm: farm.proxy)
        self.started("s2", keeper.proxy)
        asked_first = self.answering(keeper, line(answer={}), line(answer={"stopped": True}))
        self.answering(other, line(answer={}), line(answer={"stopped": False}))
        self.assertEqual(self.document("farm", "stop", "s2"), {"server": "s2", "state": "draining"})
        self.assertEqual(json.loads(asked_first.requests[1]), {"ask": "stop", "server": "s2"})
        asked_first.close()
        self.assertIn("has ended already", self.fails("farm", "stop", "s2"))

    def test_stop_what_is_not_started(self) -> None:
        """What runs elsewhere, has ended or does not exist cannot be stopped, and why is said."""
        self.world.proxy()
        self.assertIn("farm drain", self.fails("farm", "stop", "s1"))
        self.assertIn("no such game server", self.fails("farm", "stop", "s2"))
        self.world.sql("UPDATE game_servers SET state = 'closed'")
        self.assertIn("has ended already", self.fails("farm", "stop", "s1"))


class Reload(CommandTestCase):
    """``reload``: what comes of it is shown as the proxies say it; tests/real/test_reload.py has real ones."""

    def told(self, *outcomes: dict[str, object]) -> list[GameFarm]:
        """Proxies that have this to say."""
        farms = sorted((self.reachable() for _ in outcomes), key=lambda farm: farm.proxy)
        for farm, outcome in zip(farms, outcomes, strict=True):
            self.answering(farm, line(answer=outcome))
        return farms

    def test_several_proxies(self) -> None:
        """Those that were started with this file are reloaded, all of them; what they tell is escaped."""
        change = {"place": ESCAPE, "from": "1", "to": None}
        done: dict[str, object] = {
            "reloaded": True,
            "changes": [change],
            "problems": [],
            "left_out": 2,
        }
        idle = {**done, "changes": [], "left_out": 0}
        one, _, three = self.told(done, {"reloaded": None, "file": "/x"}, idle)
        status, output, errors = self.gameproxy("reload")
        self.assertEqual((status, errors), (0, ""))
        self.assertEqual(
            output.splitlines(),
            [
                f"{one.proxy} was reloaded:",
                r"  \x1b[2J\u202e[bold]: no more",
                "  and 2 more changes, which are in its log",
                f"{three.proxy} was reloaded: nothing in its configuration has changed.",
            ],
        )

    def test_some_fail(self) -> None:
        """When one proxy of several is not reloaded the command has failed, and says which are."""
        problem = {"place": "auth.timeout", "problem": ESCAPE}
        failed = {"reloaded": False, "changes": [], "problems": [problem], "left_out": 3}
        done = {"reloaded": True, "changes": [], "problems": [], "left_out": 0}
        one, two = self.told(failed, done)
        silent = self.reachable()
        lines = self.fails("reload").splitlines()
        self.assertEqual(
            sorted(lines),
            sorted(
                [
                    rf"{one.proxy}: auth.timeout: \x1b[2J\u202e[bold]",
                    f"{one.proxy}: 3 more problems are in its log",
                    f"{two.proxy} was reloaded",
                    next(line for line in lines if line.startswith(f"{silent.proxy} cannot be")),
                ]
            ),
        )

    def test_nonsense(self) -> None:
        """Answers that make no sense are none; a proxy of an older version says that it does not know this."""
        done: dict[str, object] = {"reloaded": True, "changes": [], "problems": [], "left_out": 0}
        for answer in (
            line(answer={}),
            line(answer={**done, "changes": [1]}),
            line(answer={**done, "problems": [{"place": 1}]}),
            line(answer={**done, "left_out": "many"}),
        ):
            self.answering(self.reachable(), answer)
            self.assertIn("no answer that makes sense", self.fails("reload"))
            self.world.sql("DELETE FROM proxies")
        self.answering(self.reachable(), line(error="protocol_error", message="Does not know."))
        self.assertIn("Does not know.", self.fails("reload"))

    def test_no_proxy(self) -> None:
        """Where none runs, nothing is reloaded, and that is said."""
        self.world.proxy()
        self.assertIn("nothing was reloaded", self.fails("reload"))


class Status(CommandTestCase):
    """``status``."""

    def test_no_proxy(self) -> None:
        """With no proxy running the farm is shown as the database has it; dead proxies are none."""
        self.world.proxy()
        document = self.document("status")
        self.assertEqual(
            document["sessions"],
            {
                "total": 0,
                "by_state": {},
                "by_relay": {"transport": 0, "epoll": 0, "sockmap": 0},
                "by_game": {"chess": 0},
            },
        )
        self.assertEqual((document["queue"], document["proxies"]), ({"length": 0}, []))
        self.assertEqual(document["farm"]["servers"], {"ready": 1})
        self.assertIn("No proxy runs.", self.gameproxy("status")[1])

    def test_queue(self) -> None:
        """Who waits, for which game, and what starts have failed, is shown."""
        farm = self.world.proxy()
        for _ in range(5):
            self.world.client(farm)
        self.world.sql(
            "INSERT OR REPLACE INTO starts (game, streak, not_before) VALUES ('chess', 4, 9)"
        )
        document = self.document("status")
        self.assertEqual(document["queue"], {"length": 3})
        self.assertEqual(document["sessions"]["by_game"], {"chess": 5})
        (game,) = document["games"]
        self.assertEqual((game["waiting"], game["free"], game["failures"]), (3, 0, 4))
        self.assertRegex(self.gameproxy("status")[1], r"chess +5 +3 +3 +0 +4")

    def test_several_proxies(self) -> None:
        """What all proxies say is added up; each is shown too, also those that do not answer."""
        self.patch(status, "STATUS_PATIENCE", 0.05)
        farms = sorted((self.reachable() for _ in range(4)), key=lambda farm: farm.proxy)
        self.answering(farms[0], line(answer=FACTS))
        self.answering(farms[1], line(answer=FACTS))
        self.answering(farms[2])
        document = self.document("status")
        self.assertEqual(document["sessions"]["total"], 6)
        self.assertEqual(document["sessions"]["by_state"], {"relaying": 4, "expecting": 2})
        self.assertEqual(
            document["sessions"]["by_relay"], {"transport": 0, "epoll": 4, "sockmap": 0}
        )
        self.assertEqual(document["limits"], {"max_sessions": 20})
        proxies = document["proxies"]
        self.assertEqual([proxy["id"] for proxy in proxies], [farm.proxy for farm in farms])
        self.assertEqual([proxy["answers"] for proxy in proxies], [True, True, False, False])
        self.assertEqual(proxies[0]["sessions"], 3)
        self.assertEqual(proxies[2]["trouble"], "does not answer within 0.05 s")
        self.assertIn("cannot be asked", proxies[3]["trouble"])

    def test_page(self) -> None:
        """People are shown a line for each proxy."""
        farms = sorted((self.reachable() for _ in range(2)), key=lambda farm: farm.proxy)
        self.answering(farms[0], line(answer=FACTS))
        _, output, errors = self.gameproxy("status")
        self.assertEqual(errors, "")
        self.assertIn("Sessions: 3 (1 expecting, 2 relaying), 0 waiting", output)
        self.assertIn("\nRelayed by: 2 epoll\n", output)
        self.assertNotIn("kernel", output)
        self.assertRegex(output, rf"{farms[0].proxy} .* 3 +10 +1 expecting, 2 relaying")
        self.assertRegex(output, rf"{farms[1].proxy} .*cannot be asked")

    def test_draining(self) -> None:
        """That a proxy is being stopped is shown, since when, how many are left, and when it ends them; so is that it
        does not serve yet."""
        farms = sorted((self.reachable() for _ in range(3)), key=lambda farm: farm.proxy)
        now = time.time()
        drains: list[dict[str, object]] = [
            {"since": now - 40, "ends_at": now + 7230, "sessions": 3},
            {"since": now - 4000, "ends_at": now - 1, "sessions": 3},
        ]
        for farm, drain in zip(farms, drains, strict=False):
            answer = line(answer={**FACTS, "state": "draining", "drain": drain})
            self.answering(farm, answer, answer)
        starting = line(answer={**FACTS, "state": "starting", "drain": None})
        self.answering(farms[2], starting, starting)
        output = self.gameproxy("status")[1]
        self.assertRegex(
            output, r" 3 +10 +draining since 4\d s, those left end in 2 h: 1 expecting, 2 relaying"
        )
        self.assertIn("draining since 1 h, those left are being ended: 1 exp", output)
        self.assertIn(" starting: 1 exp", output)
        first, second, third = self.document("status")["proxies"]
        self.assertEqual((first["state"], first["drain"]), ("draining", drains[0]))
        self.assertEqual((second["drain"], third["drain"]), (drains[1], None))
        self.assertEqual(third["state"], "starting")

    def test_limits(self) -> None:
        """Limits that were broken are shown, with whether that ended anybody."""
        farm = self.reachable()
        numbers = {"frames_per_second_dry_run_sessions": 4, "frames_per_second_dry_run_units": 99}
        numbers |= {"idle_seconds_enforce_sessions": 0, "idle_seconds_enforce_units": 0}
        limits = {"max_sessions": 10, **numbers}
        self.answering(farm, line(answer={**FACTS, "limits": limits}))
        _, output, _ = self.gameproxy("status")
        self.assertIn("\nLimits broken: 4 frames_per_second (dry_run)\n", output)

    def test_not_in_the_kernel(self) -> None:
        """Why the kernel relays no sessions is said, once, where it was to relay them."""
        for configured, sockmap in (
            ("auto", f"Too old. {ESCAPE}"),
            ("auto", f"Too old. {ESCAPE}"),
            ("epoll", "Another is named."),
        ):
            relay = {"configured": configured, "sockmap": sockmap}
            answer = line(answer={**FACTS, "relay": relay})
            self.answering(self.reachable(), answer, answer)
        output = self.gameproxy("status")[1]
        told = r"Not relayed by the kernel: Too old. \x1b[2J\u202e[bold]"
        self.assertEqual(output.count(told), 1)
        self.assertEqual(output.count("kernel"), 1)
        answers = [proxy["relay"] for proxy in self.document("status")["proxies"]]
        self.assertEqual(len(answers), 3)
        self.assertIn({"configured": "epoll", "sockmap": "Another is named."}, answers)

    def test_nonsense(self) -> None:
        """Answers that make no sense, or have no end, are no answers."""
        wrong_drain = {**FACTS, "drain": {"since": "long"}}
        wrong_number = {**FACTS, "limits": {"max_sessions": "many"}}
        for answer in (
            b"",
            b"{}\n",
            b"[]\n",
            b'{"answer": 1}\n',
            line(answer={}),
            line(answer=wrong_number),
            line(answer=wrong_drain),
            line(error="internal", message="Failed."),
            b"x" * (asking.ANSWER_MAX + 1),
        ):
            farm = self.reachable()
            self.answering(farm, answer)
            (proxy,) = self.document("status")["proxies"]
            self.assertFalse(proxy["answers"])
            self.assertRegex(proxy["trouble"], "no (whole )?answer")
            self.world.sql("DELETE FROM proxies")

    def test_crowded(self) -> None:
        """A proxy that hangs, at whose socket many wait already, does not hold up the command."""
        farm = self.reachable()
        path = control_path(self.database, farm.proxy)
        path.parent.mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX) as hung, ExitStack() as waiting:
            hung.bind(str(path))
            hung.listen(0)
            with self.assertRaises(BlockingIOError):
                while True:
                    one = waiting.enter_context(socket.socket(socket.AF_UNIX))
                    one.setblocking(False)
                    one.connect(str(path))
            (proxy,) = self.document("status")["proxies"]
        self.assertIn("cannot be asked", proxy["trouble"])

    def test_long_path(self) -> None:
        """A socket whose path is too long is told as that."""
        self.database = self.folder / ("x" * 100) / "farm.db"
        self.database.parent.mkdir()
        self.file.write_text(f'[proxy]\ndatabase = "sqlite:///{"x" * 100}/farm.db"\n{CONFIG}')
        self.world.path = self.database
        self.reachable()
        (proxy,) = self.document("status")["proxies"]
        self.assertIn("path too long", proxy["trouble"])


class Terminal(CommandTestCase):
    """What reaches the terminal."""

    def test_escaped(self) -> None:
        """Whatever stands in the database is text: nothing a terminal obeys, no markup, on any page."""
        self.reachable()
        nonsense: tuple[object, ...] = (ESCAPE, b"\xff\x1b\x00", 9e999)
        for number, value in enumerate(nonsense):
            self.world.sql(
                "INSERT INTO game_servers (id, game, state, host, port, capacity, reported_load, "
                "heartbeat_at, pid) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                f"{number}{ESCAPE}",
                *(value,) * 8,
            )
            self.world.sql("INSERT INTO bans VALUES (?, ?, ?, ?, ?, 9e999)", *(value,) * 5)
        self.world.sql("UPDATE proxies SET id = ?, pid = ?, beat = ?", *(ESCAPE,) * 3)
        self.world.sql("UPDATE game_servers SET id = CAST(x'ff1b' AS TEXT) WHERE id LIKE '2%'")
        for arguments in (("farm",), ("bans",), ("status",)):
            for extra in ((), ("--json",)):
                exit_status, output, errors = self.gameproxy(*arguments, *extra)
                self.assertEqual((exit_status, errors), (0, ""), arguments)
                for one in output.splitlines():
                    self.assertTrue(one.isprintable(), one)
                self.assertIn("[bold]", output)
                if extra:
                    json.loads(output, parse_constant=self.fail)
        for action in ("drain", "stop"):
            self.assertNotIn("\x1b", self.fails("farm", action, f"0{ESCAPE}"))
        self.assertNotIn("\x1b", self.fails("farm", "start", ESCAPE))

    def test_width(self) -> None:
        """What is piped into another program has a line for each row, however long."""
        self.world.proxy()
        self.world.sql("UPDATE game_servers SET id = ?", "x" * 300)
        _, output, _ = self.gameproxy("farm")
        self.assertTrue(re.search(f"^{'x' * 300} +chess .*127.0.0.1:4001", output, re.MULTILINE))

    def test_durations(self) -> None:
        """Durations are rough, moments local; what is neither is a question mark."""
        for value, text in (
            (0.4, "0 s"),
            (59, "59 s"),
            (125, "2 min"),
            (7300, "2 h"),
            (-200000, "-2 d"),
            (9e999, "?"),
            ("x", "?"),
            (None, "?"),
        ):
            self.assertEqual(duration(value), text)
        self.patch(os, "environ", {**os.environ, "TZ": "UTC"})
        time.tzset()
        self.assertEqual(moment(0), "1970-01-01 00:00:00")
        for value in ("x", None, 9e999, 1e300):
            self.assertEqual(moment(value), "?")
