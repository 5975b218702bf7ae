"""gameproxy.admin.api: what operators' commands do, over HTTP, on a farm under a clock"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.admin.api import ANSWER_TIME, PAGE_MAX, Api
from gameproxy.admin.http import Answer, Asked
from gameproxy.admission import Admission
from gameproxy.config import ConfigError
from gameproxy.config_changes import Change
from gameproxy.farm import GameFarm
from gameproxy.operators import TOLD_MAX, Operators
from gameproxy.subjects import REASON_MAX
from tests.fake_life import FakeLife
from tests.farm_fixture import World, listed

TOKEN = bytes(range(32)).hex().encode()


class ApiTestCase(SynchronousTestCase):
    """A proxy with a game that it starts, and a listed game server."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        chess = {"name": "chess", "command": ["chessd"], "capacity": 2, "max_servers": 1}
        self.world = World(folder / "farm.db", games=[chess], servers=[listed("s1", game="go")])
        self.farm: GameFarm = self.world.proxy()
        self.life = FakeLife()
        self.api = Api(
            Operators(
                Admission(5, 3),
                self.farm,
                lambda: {"configured": "auto", "sockmap": "on"},
                self.world.reactor,
                self.life,
            ),
            TOKEN,
            self.world.reactor,
        )
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "gameproxy.admin.api.Api":
            self.events.append(event)

    def ask(self, method: str, *path: str, **more: Any) -> Answer:
        """The answer to a request with the token."""
        more.setdefault("authorization", b"Bearer " + TOKEN)
        body = more.pop("json", None)
        if body is not None:
            more |= {"body": json.dumps(body).encode(), "content_type": "application/json"}
        answer = self.api.answer(Asked(method, ("v1", *path), address="192.0.2.7", **more))
        self.world.reactor.settle()
        return self.successResultOf(answer)

    def document(self, status: int, method: str, *path: str, **more: Any) -> Any:
        """The document of an answer with this status."""
        answer = self.ask(method, *path, **more)
        self.assertEqual(answer.status, status, answer.body)
        kind = "application/json" if status < 300 else "application/problem+json"
        self.assertEqual(answer.content_type, kind)
        return json.loads(answer.body)

    def problem(self, status: int, method: str, *path: str, **more: Any) -> str:
        """The sentence of an answer that says that it was not done."""
        document = self.document(status, method, *path, **more)
        self.assertEqual(set(document), {"title", "status", "detail"})
        self.assertEqual(document["status"], status)
        self.assertTrue(document["detail"].endswith("."), document["detail"])
        return str(document["detail"])


class TokenTests(ApiTestCase):
    """Who may ask"""

    def test_without(self) -> None:
        """Without the token nothing is told or done, not even whether it could be."""
        for authorization in (
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearer " + TOKEN[:-1],
            b"Bearer " + TOKEN + b"0",
            b"Bearer " + TOKEN[:-1] + b"!",
            b"Bearer " + bytes(64),
            b"Basic " + TOKEN,
            TOKEN,
            b"Bearer x " + TOKEN,
        ):
            for method, path in (
                ("GET", ("status",)),
                ("GET", ("openapi.json",)),
                ("GET", ("no-such",)),
                ("POST", ("games", "chess", "start")),
                ("TRACE", ("status",)),
            ):
                answer = self.ask(method, *path, authorization=authorization)
                self.assertEqual((answer.status, path), (401, path))
                self.assertIn("WWW-Authenticate", answer.headers)
        self.assertEqual(self.world.starter.started, [])

    def test_with(self) -> None:
        """The scheme's case does not matter, nor that of the digits."""
        for authorization in (b"bearer " + TOKEN, b"BEARER  " + TOKEN.upper()):
            self.assertEqual(self.ask("GET", "status", authorization=authorization).status, 200)

    def test_guessing(self) -> None:
        """Whoever guesses has a line a second in the log, with the number of the others; no token is in it."""
        for _ in range(100):
            self.ask("GET", "status", authorization=b"Bearer guess")
        self.world.reactor.advance(1.0)
        self.assertEqual([event.get("left_out") for event in self.events], [None, 98])
        self.assertNotIn("guess", str(self.events))
        self.api.flush()

    def test_orders_are_logged(self) -> None:
        """What was ordered is logged, with where from; what was only asked is not."""
        self.ask("GET", "status")
        self.ask("PUT", "bans", "player", "ann", json={})
        ((event, address, path),) = [
            (event["event"], event["address"], event["path"]) for event in self.events
        ]
        self.assertEqual((event, address, path), ("admin_order", "192.0.2.7", "v1/bans/player/ann"))


class FarmTests(ApiTestCase):
    """Status and game servers"""

    def test_status(self) -> None:
        """This proxy's sessions and limits, and the farm's queue, sums and games, as the command has them."""
        status = self.document(200, "GET", "status")
        self.assertEqual(status["proxy"], self.farm.proxy)
        self.assertEqual(status["sessions"]["by_relay"], {"transport": 0, "epoll": 0, "sockmap": 0})
        self.assertEqual((status["queue"], status["limits"]["max_sessions"]), ({"length": 0}, 5))
        self.assertEqual(status["farm"]["servers"], {"ready": 1})
        self.assertEqual([game["game"] for game in status["games"]], ["go"])

    def test_head(self) -> None:
        """HEAD is as GET."""
        self.assertEqual(self.ask("HEAD", "status").status, 200)

    def test_servers(self) -> None:
        """The game servers, in pages."""
        self.document(202, "POST", "games", "chess", "start")
        everything = self.document(200, "GET", "servers")
        self.assertEqual([row["game"] for row in everything["servers"]], ["chess", "go"])
        self.assertEqual(everything["farm"]["servers"], {"ready": 1, "starting": 1})
        for query, games in (
            ({"limit": ["1"]}, ["chess"]),
            ({"limit": ["1"], "offset": ["1"]}, ["go"]),
            ({"offset": ["2"]}, []),
        ):
            page = self.document(200, "GET", "servers", query=query)
            self.assertEqual([row["game"] for row in page["servers"]], games)

    def test_bad_page(self) -> None:
        """What is no number, or too many, is told as that."""
        for name, value in (
            ("limit", ["0"]),
            ("limit", [str(PAGE_MAX + 1)]),
            ("limit", ["-1"]),
            ("limit", ["1", "2"]),
            ("limit", ["1e3"]),
            ("limit", ["\u0663"]),
            ("limit", [""]),
            ("offset", ["1" * 5000]),
            ("offset", ["x"]),
        ):
            self.assertIn(name, self.problem(400, "GET", "servers", query={name: value}))

    def test_start_drain_stop(self) -> None:
        """A game server is started, drained and ended; what makes no sense has a status and a sentence."""
        server = self.document(202, "POST", "games", "chess", "start")["server"]
        self.assertEqual(self.world.starter.started, [server])
        self.assertIn("max_servers", self.problem(409, "POST", "games", "chess", "start"))
        self.assertIn("this game", self.problem(404, "POST", "games", "go", "start"))
        self.assertIn("starting", self.problem(409, "POST", "servers", server, "drain"))
        self.world.ready(server)
        draining = {"server": server, "state": "draining"}
        for _ in range(2):
            self.assertEqual(self.document(200, "POST", "servers", server, "drain"), draining)
        self.assertEqual(self.document(202, "POST", "servers", server, "stop"), draining)
        self.assertEqual(self.world.processes.signals, [(self.world.starter.pids[server], 15)])
        self.world.starter.end(server)
        self.world.reactor.settle()
        for what in ("drain", "stop"):
            self.assertIn("has ended", self.problem(404, "POST", "servers", server, what))
            self.assertIn("no such", self.problem(404, "POST", "servers", "x\0y", what))
        self.assertIn("not started", self.problem(409, "POST", "servers", "s1", "stop"))

    def test_database_out_of_order(self) -> None:
        """When the database cannot be used, that is said, and that it is not the asker's fault."""
        self.world.reactor.threads.broken = OSError("gone")
        for method, path, more in (
            ("GET", ("status",), {}),
            ("GET", ("servers",), {}),
            ("GET", ("bans",), {}),
            ("POST", ("servers", "s1", "drain"), {}),
            ("POST", ("servers", "s1", "stop"), {}),
            ("PUT", ("bans", "player", "ann"), {"json": {}}),
            ("DELETE", ("bans", "player", "ann"), {}),
            ("POST", ("kicks",), {"json": {"kind": "player", "subject": "ann"}}),
        ):
            self.assertIn("database", self.problem(503, method, *path, **more))
        self.problem(503, "POST", "games", "chess", "start")

    def test_database_that_hangs(self) -> None:
        """What is not done in time is told as that, before the connection is cut."""
        self.world.reactor.threads.held = True
        asked = Asked("GET", ("v1", "status"), authorization=b"Bearer " + TOKEN)
        answer = self.api.answer(asked)
        self.world.reactor.advance(ANSWER_TIME - 0.1)
        self.assertNoResult(answer)
        self.world.reactor.advance(0.2)
        self.assertEqual(self.successResultOf(answer).status, 503)
        self.world.reactor.threads.held = False
        self.world.reactor.threads.run()

    def test_spoiled_rows(self) -> None:
        """Whatever somebody wrote into a row is told in JSON."""
        self.world.sql("UPDATE game_servers SET host = x'ff', heartbeat_at = 9e999 WHERE id = 's1'")
        (row,) = self.document(200, "GET", "servers")["servers"]
        self.assertEqual((row["host"], row["heartbeat_at"]), ("\\xff", None))


class BanTests(ApiTestCase):
    """Bans and kicks"""

    def test_ban(self) -> None:
        """A ban is put, listed, and lifted; who lifts it twice is told."""
        ban = self.document(
            200, "PUT", "bans", "player", "ann", json={"seconds": 60, "reason": "rude"}
        )
        self.assertEqual((ban["kind"], ban["subject"], ban["reason"]), ("player", "ann", "rude"))
        self.assertAlmostEqual(ban["expires_at"] - ban["created_at"], 60.0)
        self.assertEqual(self.document(200, "GET", "bans"), {"bans": [ban]})
        self.assertEqual(self.document(200, "GET", "bans", query={"offset": ["1"]}), {"bans": []})
        lifted = self.document(200, "DELETE", "bans", "player", "ann")
        self.assertEqual(lifted, {"kind": "player", "subject": "ann"})
        self.assertIn("not banned", self.problem(404, "DELETE", "bans", "player", "ann"))

    def test_forever(self) -> None:
        """Without seconds it is for ever, and a shorter one later changes nothing."""
        for body in ({}, {"seconds": None}, {"seconds": 1.5}):
            ban = self.document(200, "PUT", "bans", "address", "192.0.2.7/24", json=body)
            self.assertEqual((ban["subject"], ban["expires_at"]), ("192.0.2.0/24", None))

    def test_reason_from_outside(self) -> None:
        """A reason is kept as what a terminal can show."""
        ban = self.document(200, "PUT", "bans", "player", "a", json={"reason": "\x1b\u202eb"})
        self.assertEqual(ban["reason"], "\\x1b\\u202eb")
        self.problem(400, "PUT", "bans", "player", "a", json={"reason": "\ud800"})

    def test_nobody(self) -> None:
        """Whom there cannot be cannot be banned."""
        for kind, name in (
            ("player", ""),
            ("player", "x" * 65),
            ("player", "\u202e"),
            ("address", "192.0.2.300"),
            ("address", "fe80::1%eth0"),
            ("planet", "mars"),
        ):
            self.problem(404, "PUT", "bans", kind, name, json={})
            self.problem(404, "DELETE", "bans", kind, name)

    def test_bad_bodies(self) -> None:
        """What is no body for a ban is told with its fault, and nobody is banned."""
        for body in (
            {"seconds": 0},
            {"seconds": -1},
            {"seconds": 1e10},
            {"seconds": "60"},
            {"seconds": True},
            {"reason": 1},
            {"reason": "x" * (REASON_MAX + 1)},
            {"colour": "red"},
        ):
            fault = self.problem(400, "PUT", "bans", "player", "ann", json=body)
            self.assertIn(next(iter(body)), fault)
        for raw in (b"", b"[]", b"{", b'{"reason": "a", "reason": "b"}', b"\xff", b"[" * 9000):
            kind = "application/json"
            self.problem(400, "PUT", "bans", "player", "ann", body=raw, content_type=kind)
        self.problem(415, "PUT", "bans", "player", "ann", body=b"{}", content_type="text/plain")
        self.problem(
            413, "PUT", "bans", "player", "ann", body=None, content_type="application/json"
        )
        self.assertEqual(self.document(200, "GET", "bans"), {"bans": []})

    def test_kick(self) -> None:
        """All sessions of a player, or from an address, end; who has none is told so."""
        body = {"kind": "player", "subject": "ann"}
        self.assertIn("no session", self.problem(404, "POST", "kicks", json=body))
        self.world.client(self.farm, "go", player="ann", address="192.0.2.9")
        done = self.document(200, "POST", "kicks", json=body)
        self.assertEqual(done, {**body, "sessions": 1})
        self.world.reactor.advance(1.0)
        self.assertEqual([reason for _, reason in self.world.evicted], ["kicked"])
        self.world.client(self.farm, "go", player="bob", address="192.0.2.10")
        network = {"kind": "address", "subject": "192.0.2.0/24"}
        self.assertGreaterEqual(self.document(200, "POST", "kicks", json=network)["sessions"], 1)
        for wrong in ({}, {"kind": "player"}, {"kind": "x", "subject": "a"}, {**body, "a": 1}):
            self.problem(400, "POST", "kicks", json=wrong)


class ReloadTests(ApiTestCase):
    """POST /v1/reload"""

    def test_reload(self) -> None:
        """What has changed is told; of very many changes, how many more there are."""
        self.life.outcome = [Change("auth.timeout", "5.0", "7.0"), Change("games.go", "{}", None)]
        told = self.document(200, "POST", "reload")
        changes = [
            {"place": "auth.timeout", "from": "5.0", "to": "7.0"},
            {"place": "games.go", "from": "{}", "to": None},
        ]
        self.assertEqual(told, {"changes": changes, "left_out": 0})
        self.life.outcome = [Change("x", None, "1")] * (TOLD_MAX + 7)
        told = self.document(200, "POST", "reload")
        self.assertEqual((len(told["changes"]), told["left_out"]), (TOLD_MAX, 7))
        self.assertEqual(self.life.reloads, 2)

    def test_not_reloaded(self) -> None:
        """Each problem is told with its place."""
        self.life.outcome = ConfigError([("", "is empty"), ("auth.timeout", "must be more")])
        self.assertEqual(
            self.problem(409, "POST", "reload"), "is empty; auth.timeout: must be more."
        )


class DescriptionTests(ApiTestCase):
    """The description, and what it describes"""

    def test_served(self) -> None:
        """It is served as it is in the package."""
        answer = self.ask("GET", "openapi.json")
        text = (files("gameproxy.admin") / "openapi.json").read_bytes()
        self.assertEqual((answer.status, answer.body), (200, text))

    def test_complete(self) -> None:
        """It has each path and method that there is, and no other."""
        paths = self.document(200, "GET", "openapi.json")["paths"]
        described = {
            (
                method.upper(),
                tuple(None if part[:1] == "{" else part for part in path.split("/")[2:]),
            )
            for path, item in paths.items()
            for method in item
            if method != "parameters"
        }
        self.assertEqual(described, {route[:2] for route in self.api._routes})

    def test_methods(self) -> None:
        """Any other method is told which there are; there is none to ask what another site may do."""
        for method in ("PUT", "OPTIONS", "TRACE", "get", "BREW"):
            answer = self.ask(method, "status")
            self.assertEqual((answer.status, answer.headers["Allow"]), (405, "GET"))
        self.assertEqual(self.ask("GET", "bans", "player", "a").headers["Allow"], "DELETE, PUT")

    def test_elsewhere(self) -> None:
        """Where nothing is, there is nothing."""
        for path in ((), ("",), ("statu",), ("status", ""), ("bans", "player")):
            self.problem(404, "GET", *path)

    def test_fault(self) -> None:
        """A fault of its own is no answer, and not the asker's."""
        self.patch(self.farm, "read", lambda operation: Deferred().errback)
        answer = self.api.answer(
            Asked("GET", ("v1", "bans"), authorization=b"Bearer " + TOKEN, query={})
        )
        self.failureResultOf(answer, AttributeError)
