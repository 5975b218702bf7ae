"""gameproxy.admin: a whole proxy that is watched, on a reactor in memory"""

from __future__ import annotations

import json
import stat
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError
from twisted.logger import globalLogPublisher

from gameproxy.admin import watch
from gameproxy.admin.http import Answer, Asked
from gameproxy.admin.pages import DATABASE_PATIENCE, METRICS_FRESH
from gameproxy.admin.tally import FARM_FRESH
from gameproxy.config import AdminConfig, Config, LogConfig, ProxyConfig
from gameproxy.service import ConfigurationError, GameProxy
from tests.unit.test_service import ServiceTestCase

ADMIN = AdminConfig(listen="tcp:9180:interface=127.0.0.1")


class WatchedTestCase(ServiceTestCase):
    """A proxy with an admin site."""

    def config(self, **sections: Any) -> Config:
        sections.setdefault("admin", ADMIN)
        return super().config(**sections)

    def ask(self, path: str, method: str = "GET", **more: Any) -> Deferred[Answer]:
        """A request to the factory that listens at the admin site's port."""
        (factory,) = [server[1] for server in self.reactor.tcpServers if server[0] == 9180]
        answer: Deferred[Answer] = factory.answer(Asked(method, tuple(path.split("/")[1:]), **more))
        return answer

    def get(self, path: str) -> Answer:
        """What is answered when all that can happen at once has happened."""
        answer = self.ask(path)
        self.settle()
        return self.successResultOf(answer)

    def metrics(self) -> dict[tuple[str, ...], float]:
        """The samples, by name and the values of their labels."""
        self.settle(METRICS_FRESH)
        answer = self.get("/metrics")
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.content_type.startswith("text/plain; version="))
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
        }


class PagesTests(WatchedTestCase):
    """What it shows"""

    def test_off(self) -> None:
        """By itself there is no site, no token, and no log."""
        self.started(self.config(admin=AdminConfig()))
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [7777])
        self.assertFalse((self.folder / "admin.token").exists())

    def test_loopback(self) -> None:
        """It listens where it is told, and nowhere else; the token is made, for its owner alone."""
        self.started()
        (server,) = [server for server in self.reactor.tcpServers if server[0] == 9180]
        self.assertEqual(server[3], "127.0.0.1")
        token = self.folder / "admin.token"
        self.assertEqual(stat.S_IMODE(token.stat().st_mode), 0o600)
        self.assertRegex(token.read_text(), r"^[0-9a-f]{64}\n$")
        bearer = b"Bearer " + token.read_bytes().strip()
        answer = self.ask("/v1/status", authorization=bearer)
        self.settle()
        self.assertEqual(self.successResultOf(answer).status, 200)

    def test_alive(self) -> None:
        """A process that can answer lives, whatever else there is."""
        proxy = self.proxy()
        proxy.privilegedStartService()
        self.assertEqual((self.get("/health").status, self.get("/health").body), (200, b"alive\n"))

    def test_ready(self) -> None:
        """Ready is who serves clients: not before the farm is open, and no more from the moment that it drains."""
        self.reactor.threads.held = True
        proxy = self.proxy()
        proxy.startService()
        answer = self.get("/ready")
        self.assertEqual((answer.status, answer.body), (503, b"starting\n"))
        self.reactor.threads.held = False
        self.reactor.threads.run()
        self.settle()
        self.assertEqual(self.get("/ready").status, 200)
        self.game_server()
        self.visit()
        proxy.stopService()
        self.settle()
        answer = self.get("/ready")
        self.assertEqual((answer.status, answer.body), (503, b"draining\n"))
        self.assertEqual(self.metrics()["gameproxy_ready",], 0)
        self.assertEqual(self.metrics()["gameproxy_sessions", "echo", "relaying"], 1)

    def test_database_does_not_answer(self) -> None:
        """Who cannot read the farm's database is not ready, nor who waits for it; it is again when it can."""
        self.started()
        self.settle(FARM_FRESH)
        self.reactor.threads.broken = OSError("gone")
        answer = self.get("/ready")
        self.assertEqual(
            (answer.status, answer.body), (503, b"the farm's database does not answer\n")
        )
        self.assertEqual(self.metrics()["gameproxy_farm_up",], 0)
        self.reactor.threads.broken = None
        self.settle(10.0)
        self.assertEqual(self.get("/ready").status, 200)
        self.reactor.threads.held = True
        self.settle(FARM_FRESH)
        waiting = self.ask("/ready")
        self.settle(DATABASE_PATIENCE - 0.5)
        self.assertNoResult(waiting)
        self.settle(1.0)
        self.assertEqual(self.successResultOf(waiting).status, 503)
        self.reactor.threads.held = False
        self.reactor.threads.run()

    def test_database_cannot_be_written(self) -> None:
        """Who can read but not write it would turn every client away: it is not ready."""
        self.started()
        self.reactor.threads.locked = True
        self.settle(10.0)
        self.assertEqual(self.get("/ready").status, 503)
        self.reactor.threads.locked = False
        self.settle(10.0)
        self.assertEqual(self.get("/ready").status, 200)

    def test_database_is_asked_seldom(self) -> None:
        """However often metrics and readiness are asked for, the database is, at most, once in a few seconds."""
        proxy = self.started()
        questions: list[object] = []
        read = proxy.farm.read
        self.patch(proxy.farm, "read", lambda operation: questions.append(1) or read(operation))
        for _ in range(50):
            self.get("/ready"), self.get("/metrics")
            self.settle(0.1)
        self.assertLessEqual(len(questions), 5.0 / FARM_FRESH + 1)
        self.assertGreater(len(questions), 0)

    def test_scrapes_share(self) -> None:
        """A crowd that scrapes has one text, for a second."""
        proxy = self.started()
        first = self.get("/metrics").body
        proxy.metrics.turned_away += 1
        self.assertEqual(self.get("/metrics").body, first)
        self.settle(METRICS_FRESH)
        self.assertNotEqual(self.get("/metrics").body, first)

    def test_session(self) -> None:
        """A session is where it is while it plays, and in the counts of what was, when it is over."""
        self.started()
        self.game_server()
        visitor = self.visit()
        visitor.send(b"\x10hello")
        self.settle()
        metrics = self.metrics()
        self.assertEqual(metrics["gameproxy_sessions", "echo", "relaying"], 1)
        self.assertEqual(metrics["gameproxy_relaying_sessions", "transport"], 1)
        self.assertEqual(metrics["gameproxy_relayed_frames_total", "client"], 1)
        self.assertEqual(metrics["gameproxy_relayed_bytes_total", "server"], 10)
        self.assertEqual(metrics["gameproxy_authentications_total", "guest", "accepted"], 1)
        for phase in ("expecting", "authenticating", "selecting", "connecting"):
            self.assertEqual(metrics["gameproxy_setup_phase_seconds_count", phase], 1)
        self.assertEqual(metrics["gameproxy_setup_seconds_count",], 1)
        self.settle(FARM_FRESH)
        metrics = self.metrics()
        self.assertEqual(metrics["gameproxy_farm_slots", "echo", "connected"], 1)
        self.assertEqual(metrics["gameproxy_farm_slots", "echo", "free"], 9)
        visitor.leave()
        self.let_end()
        metrics = self.metrics()
        self.assertEqual(metrics["gameproxy_sessions", "echo", "relaying"], 0)
        self.assertEqual(metrics["gameproxy_sessions_ended_total", "left"], 1)
        self.assertEqual(metrics["gameproxy_relayed_frames_total", "client"], 1)
        self.assertEqual(metrics["gameproxy_sessions_started_total",], 1)

    def test_full(self) -> None:
        """Connections for which there is no room at all are counted, and have a line a second together."""
        lines: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)
        proxy = self.started(self.config(proxy=ProxyConfig(max_sessions=1)))
        self.patch(proxy.sessions, "has_room", lambda: False)
        (factory,) = [server[1] for server in self.reactor.tcpServers if server[0] == 7777]
        for _ in range(50):
            self.assertIsNone(factory.buildProtocol(None))
        self.settle(1.0)
        self.assertEqual(self.metrics()["gameproxy_connections_turned_away_total",], 50)
        told = [line.get("left_out") for line in lines if line.get("event") == "turned_away"]
        self.assertEqual(told, [None, 48])

    def test_elsewhere(self) -> None:
        """There is nothing else, and nothing there is written to."""
        self.started()
        for path in ("/", "/metrics/", "/admin.token", "/../admin.token", "/metrics/x"):
            self.assertEqual(self.get(path).status, 404, path)
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            answer = self.successResultOf(self.ask("/metrics", method, body=None))
            self.assertEqual((answer.status, answer.headers["Allow"]), (405, "GET, HEAD"))
        asked = self.ask("/ready", "HEAD")
        self.settle()
        self.assertEqual(self.successResultOf(asked).status, 200)


class StartAndStopTests(WatchedTestCase):
    """What can go wrong, and what is left"""

    def test_in_use(self) -> None:
        """An address that is in use is an error at once."""

        class Endpoint:
            def listen(self, factory: object) -> Deferred[Any]:
                return fail(CannotListenError("127.0.0.1", 9180, OSError("in use")))

        self.patch(watch, "listening_endpoint", lambda reactor, description: Endpoint())
        self.assertRaises(CannotListenError, self.proxy().startService)

    def test_no_such_endpoint(self) -> None:
        """What is no endpoint is told with its place."""
        proxy = self.proxy(self.config(admin=AdminConfig(listen="bogus:1", public=True)))
        error = self.assertRaises(ConfigurationError, proxy.startService)
        self.assertTrue(str(error).startswith("admin.listen: is no endpoint"), str(error))

    def test_token_that_others_may_read(self) -> None:
        """A token that others may read, or that is too short, is refused with its place."""
        token = self.folder / "admin.token"
        for text, mode in (("ab" * 32, 0o644), ("ab" * 31, 0o600), ("", 0o600), ("x" * 64, 0o600)):
            token.write_text(text)
            token.chmod(mode)
            error = self.assertRaises(ConfigurationError, self.proxy)
            self.assertTrue(str(error).startswith("admin.token_file: "), str(error))

    def test_log_that_cannot_be_opened(self) -> None:
        """A log that cannot be opened is told with its place."""
        proxy = self.proxy(self.config(log=LogConfig(json_file="no/such/log")))
        error = self.assertRaises(ConfigurationError, proxy.startService)
        self.assertTrue(str(error).startswith("log.json_file: "), str(error))

    def test_log(self) -> None:
        """The log for programs has the end of each session, also of the last, and ends with the proxy."""
        proxy = self.started(self.config(log=LogConfig(json_file="proxy.jsonl")))
        self.game_server()
        self.visit()
        stopped = proxy.stopService()
        self.settle(40.0)
        self.let_end()
        self.successResultOf(stopped)
        lines = [
            json.loads(line) for line in (self.folder / "proxy.jsonl").read_text().splitlines()
        ]
        ends = [line for line in lines if line.get("event") == "session_end"]
        self.assertEqual(
            [(end["reason"], end["player"]) for end in ends], [("draining", "guest:ann")]
        )
        self.assertEqual([end["server"] for end in ends], ["s1"])

    def test_stop(self) -> None:
        """The site is there until nothing else is left; then it listens no more, and its connections end."""
        proxy = self.started()
        (factory,) = [server[1] for server in self.reactor.tcpServers if server[0] == 9180]
        aborted: list[object] = []

        class Channel:
            def abort(self) -> None:
                aborted.append(self)

        factory.channels.append(Channel())
        port = proxy._watch.port
        assert port is not None
        closed: list[object] = []
        self.patch(port, "stopListening", lambda: closed.append(list(proxy.sessions)))
        self.game_server()
        self.visit()
        done = proxy.stopService()
        self.settle()
        self.assertEqual((closed, aborted), ([], []))
        self.settle(40.0)
        self.let_end()
        self.successResultOf(done)
        self.assertEqual((closed, len(aborted)), ([[]], 1))

    def test_stop_that_fails(self) -> None:
        """A port that cannot be closed does not hold up the end."""
        proxy = self.started()
        self.patch(proxy._watch.port, "stopListening", lambda: fail(ZeroDivisionError()))
        done = proxy.stopService()
        self.settle()
        self.successResultOf(done)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ServiceLogTests(ServiceTestCase):
    """What a proxy keeps back when it ends"""

    def test_flush(self) -> None:
        """Lines that were kept back are logged before the end, and no call is left for later."""
        proxy: GameProxy = self.started()
        lines: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)
        for _ in range(3):
            proxy._session_log.turned_away()
        done = proxy.stopService()
        self.settle()
        self.successResultOf(done)
        told = [line.get("left_out") for line in lines if line.get("event") == "turned_away"]
        self.assertEqual(told, [None, 1])
