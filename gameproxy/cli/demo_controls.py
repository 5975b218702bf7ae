"""What the keys of ``gameproxy demo`` do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from gameproxy.cli.demo_facts import ServerRow

STEP: Final = 10
"""Bots that one key adds or takes away."""


class Stage(Protocol):
    """What can be done to a demo."""

    @property
    def servers(self) -> Sequence[ServerRow]:
        """The game servers, as they are shown."""
        ...

    def kill(self, server: ServerRow) -> bool:
        """End a game server as a crash does; whether it has a process that could be ended."""
        ...

    def drain(self, server: ServerRow) -> None:
        """Let nobody else onto a game server. It ends some seconds after the last has left."""
        ...

    def change_bots(self, difference: int) -> int:
        """Have more or fewer bots; how many there are from now on."""
        ...

    def end(self) -> object:
        """End it all."""
        ...


class Controls:
    """Does what the keys say, and says what was done.

    :param say: called with a line for each key that does something.
    :ivar selected: the id of the game server that keys are about; ``None``: the fullest.
    :ivar paused: whether nothing new is to be shown.
    """

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self.selected: str | None = None
        self.paused = False
        self._stage = stage
        self._say = say

    def press(self, key: str) -> None:
        """A key was pressed. Those that mean nothing do nothing."""
        match key:
            case "up":
                self._select(-1)
            case "down":
                self._select(1)
            case "k":
                self._kill()
            case "d":
                self._drain()
            case "+" | "=":
                self._change_bots(STEP)
            case "-":
                self._change_bots(-STEP)
            case "p":
                self.paused = not self.paused
                self._say("paused: p goes on" if self.paused else "it goes on")
            case "q":
                self._say("the end: bots leave, game servers stop")
                self._stage.end()

    def _select(self, step: int) -> None:
        ids = [server.id for server in self._stage.servers]
        if not ids:
            self._say("there is no game server yet")
            return
        if self.selected in ids:
            at = min(max(ids.index(self.selected) + step, 0), len(ids) - 1)
        else:
            at = 0 if step > 0 else len(ids) - 1
        self.selected = ids[at]
        self._say(f"{self.selected} is selected")

    def _target(self) -> ServerRow | None:
        servers = self._stage.servers
        if not servers:
            self._say("there is no game server yet")
            return None
        for server in servers:
            if server.id == self.selected:
                return server
        self.selected = None  # it is gone
        return max(servers, key=lambda server: server.taken)

    def _kill(self) -> None:
        server = self._target()
        if server is None:
            return
        if self._stage.kill(server):
            sessions = "1 session" if server.taken == 1 else f"{server.taken} sessions"
            self._say(f"{server.id} was killed, with {sessions} on it")
        else:
            self._say(f"{server.id} has no process that could be killed")

    def _drain(self) -> None:
        server = self._target()
        if server is not None:
            self._stage.drain(server)
            self._say(f"{server.id} is drained: who is in may stay, nobody else comes")

    def _change_bots(self, difference: int) -> None:
        self._say(f"{self._stage.change_bots(difference)} bots from now on")
