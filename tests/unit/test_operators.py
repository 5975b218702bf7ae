"""What a running proxy answers its operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.admission import Admission
from gameproxy.farm import GameFarm
from gameproxy.operators import Operators
from gameproxy.reasons import Refusal
from tests.fake_life import FakeLife
from tests.farm_fixture import World


class OperatorsTests(SynchronousTestCase):
    """A proxy that can start game servers."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        chess = {"name": "chess", "command": ["chessd"], "capacity": 2, "max_servers": 1}
        self.world = World(folder / "farm.db", games=[chess])
        self.farm: GameFarm = self.world.proxy()
        self.life = FakeLife()
        self.operators = Operators(
            Admission(5, 3),
            self.farm,
            lambda: {"configured": "epoll"},
            self.world.reactor,
            self.life,
        )

    def ask(self, **request: object) -> Any:
        """The answer; of a refusal, the reason."""
        return self.world.result(self.operators.answer(request))

    def test_status(self) -> None:
        """A proxy without sessions says so, and what its limits are."""
        status = self.ask(ask="status")
        self.assertEqual(
            status["sessions"],
            {
                "total": 0,
                "by_state": {},
                "by_relay": {"transport": 0, "epoll": 0, "sockmap": 0},
            },
        )
        self.assertEqual(status["relay"], {"configured": "epoll"})
        limits = {"max_sessions": 5, "max_unauthenticated": 3, "unauthenticated": 0}
        self.assertEqual((status["limits"], status["proxy"]), (limits, self.farm.proxy))

    def test_start_and_stop(self) -> None:
        """A game server is started, as many as there may be, and ended; what cannot be done has a reason."""
        server = self.ask(ask="start", game="chess")["server"]
        self.assertEqual(self.world.starter.started, [server])
        self.assertEqual(self.ask(ask="start", game="chess"), "no_server")
        self.assertEqual(self.ask(ask="start", game="go"), "unknown_game")
        self.assertEqual(self.ask(ask="stop", server=server), {"stopped": True})
        self.assertEqual(self.world.processes.signals, [(self.world.starter.pids[server], 15)])
        self.assertEqual(self.ask(ask="stop", server="other"), {"stopped": False})

    def test_database_out_of_order(self) -> None:
        """When the database cannot be used, that is the answer."""
        self.world.reactor.threads.locked = True
        self.assertEqual(self.ask(ask="stop", server="s"), "internal")
        self.assertEqual(self.ask(ask="start", game="chess"), "internal")

    def test_nonsense(self) -> None:
        """What is no such request is refused, and nothing is done."""
        for request in (
            {},
            {"ask": "shutdown"},
            {"ask": 1},
            {"ask": "start"},
            {"ask": "start", "game": 1},
            {"ask": "stop", "server": None},
        ):
            self.assertRaises(Refusal, self.operators.answer, request)
        self.assertEqual(self.world.starter.started, [])
