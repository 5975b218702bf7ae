"""Worlds that begin in a known state, and the files of states."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.config import ConfigError
from gameproxy.simulation.faults import KINDS
from gameproxy.simulation.runs import Run, play
from gameproxy.simulation.states import load_state, names, parse_state
from gameproxy.simulation.world import Simulation, SimulationFailed

GUESTS = "[auth]\nguests = true\n"


def server(id: str, more: str = "", game: str = "echo", capacity: int = 5) -> str:
    """One of ``[[servers]]``."""
    return f'[[servers]]\nid = "{id}"\ngame = "{game}"\ncapacity = {capacity}\n{more}\n'


def started(more: str, start_timeout: float = 60.0) -> str:
    """A game, and game servers of it that are started already."""
    return (
        '[[games]]\nname = "echo"\ncommand = ["echo"]\ncapacity = 4\nmax_servers = 4\n'
        f'start_timeout = {start_timeout}\n[[started]]\ngame = "echo"\n{more}\n'
    )


class HydrateTests(SynchronousTestCase):
    def test_the_example(self) -> None:
        """A whole test, without a with statement; nothing is left of it."""
        sim = Simulation(seed=42, virtual_budget=60, wall_budget=5)
        sim.hydrate("three_servers")
        clients = sim.clients.batch(15)
        sim.assert_reached(clients, selection=True, server=True)
        sim.farm.assert_counts(connections=15, added=15, removed=0, within=5)
        clients.disconnect_all()
        sim.farm.assert_counts(connections=0, added=15, removed=15, within=5)
        sim.settle()
        self.assertFalse(sim.config.folder.exists())

    def test_all_states(self) -> None:
        """Each that comes with gameproxy can be had, has the clients inside that it says, lets others play, and comes
        to rest; the same seed gives the same."""
        inside = {"nearly_full": 5, "one_lost_server": 4}
        for name in names():
            hashes = []
            for _ in range(2):
                sim = Simulation(5, wall_budget=30)
                clients = sim.hydrate(name)
                self.assertEqual([client.state for client in clients], ["playing"] * len(clients))
                self.assertEqual(len(clients), inside.get(name, 0))
                self.assertEqual(sim.farm.counts()["connections"], len(clients))
                sim.assert_reached(sim.clients.batch(1), server=True)
                sim.settle()
                hashes.append(sim.kernel.trace.hexdigest())
            self.assertEqual(hashes[0], hashes[1], name)

    def test_budgets_begin_with_the_state(self) -> None:
        """However long it takes until a game server is lost, and time counts from then."""
        with Simulation(1, virtual_budget=5, wall_budget=30) as sim:
            sim.hydrate("one_lost_server")
            self.assertGreater(sim.kernel.now - sim.begun, -1)
            self.assertEqual(sim.now, 0.0)
            self.assertIn("lost", sim.farm.servers().values())
            happened = []
            sim.at(1.0, lambda: happened.append(sim.now))
            sim.run_for(2)
            self.assertEqual(happened, [1.0])
            with pytest.raises(SimulationFailed, match="virtual time"):
                sim.run_for(4)

    def test_clients_by_server(self) -> None:
        """They are where the state says, of a game of several too; so is a player, who has a ticket."""
        toml = GUESTS + server("a") + server("b") + server("c", game="chess", capacity=1)
        toml += '[[clients]]\nserver = "b"\ncount = 3\n[[clients]]\nserver = "a"\n'
        toml += '[[clients]]\nserver = "c"\nplayer = "ada"\n[[clients]]\ngame = "echo"\n'
        with Simulation(2, wall_budget=30) as sim:
            clients = sim.hydrate(parse_state(toml))
            self.assertEqual([client.server for client in clients], [*"bbbacb"])
            self.assertEqual(set(sim.farm.servers().values()), {"ready"})
            self.assertEqual(sim.execute("SELECT player FROM slots WHERE server = 'c'"), [("ada",)])
            sim.assert_reached(sim.clients.batch(5, game="echo"), server=True)
            more = sim.clients.batch(1, game="chess")
            sim.run_for(1)
            self.assertEqual(more[0].state, "waiting")

    def test_conditions_of_listed_servers(self) -> None:
        """One is down, one hangs: all get to the third, and to the others when they are healed."""
        toml = GUESTS + server("down", 'condition = "down"')
        toml += server("hanging", 'condition = "hanging"') + server("good", capacity=2)
        with Simulation(4, wall_budget=30) as sim:
            sim.hydrate(parse_state(toml))
            clients = sim.clients.batch(2)
            sim.assert_reached(clients, server=True)
            self.assertEqual([client.server for client in clients], ["good", "good"])
            sim.server("down").start()
            sim.server("hanging").go_on()
            sim.run_for(10)
            others = sim.clients.batch(10)
            sim.assert_reached(others, server=True)
            self.assertEqual({client.server for client in others}, {"down", "hanging"})
            self.assertRaises(KeyError, sim.server, "nobody")
            sim.settle()

    def test_a_server_elsewhere_ends(self) -> None:
        """Killed, its players are told; stopped, it lets them play on; it can be started again, but not twice."""
        with Simulation(6, wall_budget=30) as sim:
            sim.hydrate(parse_state(GUESTS + server("a")))
            clients = sim.clients.batch(2)
            sim.assert_reached(clients, server=True)
            sim.server("a").kill()
            sim.server("a").kill()  # it has no process that anything could be sent to
            sim.assert_ended(clients, "server_lost")
            with pytest.raises(SimulationFailed, match="ended: server_lost, not left"):
                sim.assert_ended(clients, "left")
            sim.server("a").start()
            self.assertRaises(ValueError, sim.server("a").start)
            sim.run_for(5)
            again = sim.clients.batch(1)
            sim.assert_reached(again, server=True)
            sim.server("a").stop()
            sim.run_for(5)
            self.assertEqual(again[0].state, "ended")  # the echo game tells them and ends
            self.assertFalse(sim.remote_servers["a"].process.alive)
            sim.settle()
            self.assertTrue(sim.remote_servers["a"].process.alive)

    def test_tempers(self) -> None:
        """Game servers behave as the state says, those that are started too."""
        with Simulation(7, wall_budget=30) as sim:
            toml = GUESTS + server("a", "temper = { wrong_key = true }")
            sim.hydrate(parse_state(toml))
            sim.assert_ended(sim.clients.batch(1), "handshake_failed")
        with Simulation(7, wall_budget=30) as sim:
            toml = GUESTS + started('count = 2\ntemper = { start_delay = "never" }\n')
            sim.hydrate(parse_state(toml))
            self.assertEqual([*sim.farm.servers().values()], ["starting", "starting"])
        with Simulation(7, wall_budget=30) as sim:
            toml = GUESTS + started('condition = "hanging"\n[[clients]]\n')
            (client,) = sim.hydrate(parse_state(toml))
            self.assertTrue(sim.living_game_servers()[0].process.is_frozen)
            self.assertRaises(ValueError, sim.server(client.server).start)
            sim.server(client.server).go_on()
            sim.settle()

    def test_each_has_its_own_capacity(self) -> None:
        """Of two game servers of one game, the ledger counts each by its own."""
        with Simulation(8, wall_budget=30) as sim:
            sim.hydrate(parse_state(GUESTS + server("small", capacity=1) + server("large")))
            sim.assert_reached(sim.clients.batch(6), server=True)
            sim.execute("UPDATE game_servers SET capacity = 2 WHERE id = 'small'")
            with pytest.raises(SimulationFailed, match="game server small has 2 sessions"):
                sim.assert_reached(sim.clients.batch(1), server=True)

    def test_bans(self) -> None:
        """A player and an address; one ban is over after its time."""
        toml = GUESTS + server("a") + '[[bans]]\nkind = "player"\nsubject = "eve"\nseconds = 30\n'
        with Simulation(9, wall_budget=30) as sim:
            sim.hydrate(parse_state(toml))
            sim.assert_ended(sim.clients.batch(1, player="eve"), "banned")
            sim.run_for(30)
            sim.assert_reached(sim.clients.batch(1, player="eve"), server=True)
        with Simulation(9, wall_budget=30) as sim:
            everybody = '[[bans]]\nkind = "address"\nsubject = "10.0.0.0/8"\nreason = "all"\n'
            sim.hydrate(parse_state(GUESTS + server("a") + everybody))
            sim.assert_ended(sim.clients.batch(1), "banned")


class LifeTests(SynchronousTestCase):
    def test_too_late(self) -> None:
        """A world that has begun cannot be hydrated."""
        with Simulation() as sim:
            sim.farm.counts()
            self.assertRaises(ValueError, sim.hydrate, "empty")

    def test_begins_at_its_first_use(self) -> None:
        """Whatever that is."""
        for use in (
            lambda sim: sim.farm.counts(),
            lambda sim: sim.farm.servers(),
            lambda sim: sim.proxies,
            lambda sim: sim.clients.make(1),
            lambda sim: sim.run_for(0),
            lambda sim: sim.at(0, list),
            lambda sim: sim.settle(),
        ):
            with Simulation() as sim:
                self.assertEqual(sim.kernel.events, 0)
                use(sim)
                self.assertTrue(sim._proxies[0].service.started.called)

    def test_in_a_with_statement_it_goes_on(self) -> None:
        """After it has settled; without one it is closed then. Closing it again does nothing."""
        with Simulation(wall_budget=30) as sim:
            sim.settle()
            sim.assert_reached(sim.clients.batch(1), server=True)
            sim.settle()
        sim.close()
        self.assertFalse(sim.config.folder.exists())

    def test_logged_failures(self) -> None:
        """What is logged as a failure fails the run."""
        with Simulation() as sim:
            sim.start()
            try:
                raise KeyError("lost")
            except KeyError:
                Logger().failure("while looking")
            with pytest.raises(SimulationFailed, match="while looking: 'lost'"):
                sim.run_for(1)
        self.flushLoggedErrors(KeyError)

    def test_scenarios_have_states(self) -> None:
        """One that comes with gameproxy, or a file beside the scenario's; faults come after it is there."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "mine.toml").write_text(GUESTS + server("only", capacity=2))
        for state, expected in (("nearly_full", {"left": 6}), ("mine.toml", {"left": 1})):
            file = folder / "scenario.py"
            file.write_text(
                f'STATE = "{state}"\n\ndef play(sim, count):\n'
                "    sim.assert_reached(sim.clients.batch(count), server=True)\n"
            )
            result = play(Run(1, str(file), clients=1))
            self.assertEqual((result.failure, result.reasons), (None, expected))


class FaultTests(SynchronousTestCase):
    """What goes wrong can go wrong between proxies and game servers elsewhere too."""

    def test_links(self) -> None:
        """Each way between two machines that have anything to do with each other is cut and clogged at some time."""
        for kind in ("cut-one-way", "cut-both-ways", "clog"):
            with Simulation(1, wall_budget=30) as sim:
                sim.hydrate("three_servers")
                addresses = list(sim.kernel.machines)
                hit = set()
                for seed in range(100):
                    KINDS[kind](sim, Random(seed))
                    for one in addresses:
                        for other in addresses:
                            link = sim.kernel.network.link(one, other)
                            if link.down or link.extra:
                                hit.add((one, other))
                    sim.kernel.network.mend_all()
                farm, clients, *servers = addresses
                self.assertEqual(len(servers), 3)
                ways = {(farm, clients), *((farm, other) for other in servers)}
                self.assertEqual(hit, ways | {(other, one) for one, other in ways})

    def test_processes_and_connections(self) -> None:
        """Game servers elsewhere are killed, and their connections reset."""
        with Simulation(2, wall_budget=30) as sim:
            sim.hydrate("nearly_full")
            KINDS["server-killed"](sim, Random(1))
            alive = [server.process.alive for server in sim.remote_servers.values()]
            self.assertEqual(sorted(alive), [False, True])
            sim.settle()
            self.assertTrue(all(server.process.alive for server in sim.remote_servers.values()))
        lost = set()
        for seed in range(30):
            with Simulation(seed, wall_budget=30) as sim:
                (client,) = sim.hydrate(parse_state(GUESTS + server("a") + "[[clients]]\n"))
                KINDS["reset"](sim, Random(seed))
                sim.run_for(2)
                lost.add(client.ending)
        self.assertEqual(lost, {None, "server_lost"})

    def test_all_hold(self) -> None:
        """Whatever goes wrong in these states, all comes to rest."""
        folder = Path(self.mktemp())
        folder.mkdir()
        from gameproxy.simulation.faults import draw

        for seed, name in enumerate(names()):
            file = folder / f"{name}.py"
            file.write_text(
                f'STATE = "{name}"\n\n'
                "from gameproxy.simulation.scenarios.churn import play  # noqa: F401\n"
            )
            result = play(Run(seed, str(file), clients=20, faults=tuple(draw(seed, 8, 10.0))))
            self.assertIsNone(result.failure, result.failure)


class StateFileTests(SynchronousTestCase):
    def problems(self, text: str) -> dict[str, str]:
        """What is wrong with a state, by place."""
        with pytest.raises(ConfigError) as wrong:
            parse_state(text)
        return dict(wrong.value.problems)

    def test_each_problem_has_its_place(self) -> None:
        """All are told at once, those of gameproxy.toml too."""
        found = self.problems(
            '[auth]\nguests = "yes"\n[selection]\nspeed = 3\n'
            + server("a", "temper = { mood = 1 }", capacity=0)
            + server("b", 'condition = "ill"\ntemper = { start_delay = "late" }')
            + '[[bans]]\nkind = "dog"\nsubject = "x"\n[[clients]]\nplayer = "ada"\ncount = 2\n'
            '[[clients]]\nserver = "a"\ngame = "echo"\n[world]\nproxies = 0\n[farm]\nsql = 1\n'
        )
        for place in (
            "auth.guests",
            "selection.speed",
            "servers[0].capacity",
            "servers[0].temper.mood",
            "servers[1].condition",
            "bans[0].kind",
            "clients[0]",
            "clients[1]",
            "world.proxies",
            "farm.sql",
        ):
            self.assertIn(place, found)
        self.assertEqual(found["selection.speed"], "unknown key")
        self.assertTrue(any(place.startswith("servers[1].temper.start_delay") for place in found))

    def test_names_that_nothing_has(self) -> None:
        """And those that two have."""
        found = self.problems(GUESTS + server("a") + server("a") + '[[started]]\ngame = "echo"\n')
        self.assertEqual(found["servers[1].id"], "is the same as that of servers[0]")
        found = self.problems(
            GUESTS + server("a") + '[[started]]\ngame = "echo"\n'
            '[[clients]]\nserver = "b"\n[[clients]]\ngame = "go"\n'
        )
        self.assertEqual(
            found,
            {
                "started[0].game": "is none of [[games]]",
                "clients[0].server": "is none of [[servers]]",
                "clients[1].game": "is neither of [[games]] nor of [[servers]]",
            },
        )
        self.assertIn("games", self.problems(GUESTS))
        self.assertIn("folder", self.problems("folder = 'x'\n" + GUESTS + server("a")))
        self.assertIn("servers", self.problems("servers = 3\n"))

    def test_no_toml(self) -> None:
        """Neither what is none, nor what cannot be read."""
        self.assertEqual([*self.problems("[auth\n")], ["line 1, column 6"])
        with pytest.raises(ConfigError, match="there is no state four_servers: there are empty,"):
            load_state("four_servers")
        with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
            load_state(Path("nowhere.toml"))
        path = Path(self.mktemp()).with_suffix(".toml")
        path.write_bytes(b"# \xff")
        with pytest.raises(ConfigError, match="is not UTF-8 at byte 2"):
            load_state(path)

    def test_wrong_sql(self) -> None:
        """A statement that cannot be executed is named too."""
        toml = GUESTS + server("a") + '[farm]\nstatements = ["DELETE FROM bans", "MAKE odd"]\n'
        with Simulation() as sim, pytest.raises(ConfigError, match=r"farm.statements\[1\]: near"):
            sim.hydrate(parse_state(toml))
