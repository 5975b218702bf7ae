"""Game servers that no proxy starts: each on a simulated machine of its own."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Final

from gameproxy.gameserver import Place
from gameproxy.handshake import derive_server_key
from gameproxy.simulation.handles import ServerHandle
from gameproxy.simulation.ledger import Ledger
from gameproxy.simulation.machines import Machine, Process
from gameproxy.simulation.processes import send_signal
from gameproxy.simulation.programs import run_place
from gameproxy.simulation.reactor import SimReactor
from gameproxy.simulation.states import ListedState

SERVERS_NETWORK: Final = IPv4Network("10.1.0.0/16")
"""Where their machines are."""
SERVER_PORT: Final = 7100


class SimServer(ServerHandle):
    """A game server on a machine of its own, which can be ended and started again.

    :param state: what it is.
    :ivar secret: the farm's.
    :ivar reactor: of the process that runs, or was the last to run.
    """

    reactor: SimReactor
    secret: bytes

    def __init__(self, machine: Machine, state: ListedState, ledger: Ledger) -> None:
        super().__init__(self._send, self._run)
        self.machine = machine
        self.port = SERVER_PORT
        self._state = state
        self._ledger = ledger
        self._runs = False

    @property
    def process(self) -> Process:
        """That which runs, or was the last to run."""
        return self.reactor.process

    def heal(self) -> None:
        """Start it again if it has ended."""
        if not self._runs:
            self._run()

    def _run(self) -> None:
        if self._runs:
            raise ValueError(f"game server {self._state.id} runs")
        self._runs = True
        state = self._state
        process = self.machine.start(state.id)
        process.kernel.write("start", process.name)
        process.on_exit.append(self._ended)
        self.reactor = SimReactor(process)
        place = Place(
            server=state.id,
            key=derive_server_key(self.secret, state.id),
            host=self.machine.address,
            port=self.port,
            capacity=state.capacity,
        )
        run_place(self.reactor, place, self._ledger, state.temper.as_temper)

    def _ended(self, status: int, by_signal: int | None) -> None:
        self._runs = False
        self._ledger.server_ended(self._state.id)

    def _send(self, number: int) -> None:
        if self._runs:
            send_signal(self.machine, self.process.pid, number)
