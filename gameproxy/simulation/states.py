"""Known states of a world, in files that a person can read (docs/simulation, "States")."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gameproxy.config import Config, ConfigError, Problem, problems_in
from gameproxy.config_problems import read_document
from gameproxy.config_values import FROM_LIST, Count, FilledText, Name, Seconds, Share
from gameproxy.simulation.programs import Temper

FOLDER: Final = Path(__file__).parent / "states"
"""Where the states are that come with gameproxy."""
_OWN: Final = ("world", "servers", "started", "bans", "clients", "farm")
"""The sections of a state; all others are of ``gameproxy.toml``."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class TemperState(_Section):
    """How a game server behaves: :class:`gameproxy.simulation.programs.Temper`, for a file.

    :param start_delay: seconds, or ``never``.
    """

    start_delay: Annotated[float, Field(ge=0, le=1e6)] | Literal["never"] = 0.0
    exits: Seconds | None = None
    wrong_key: bool = False
    load: Share | None = None

    @property
    def as_temper(self) -> Temper:
        """The same, as the simulation has it."""
        delay = None if self.start_delay == "never" else self.start_delay
        return Temper(delay, self.exits, self.wrong_key, self.load)


class ListedState(_Section):
    """One of ``[[servers]]``: a game server that is always there, on a machine of its own.

    :param condition: ``down``: its machine is there, but nothing listens; ``hanging``: it stands still.
    """

    id: Name
    game: Name
    capacity: Count
    condition: Literal["serving", "down", "hanging"] = "serving"
    temper: TemperState = TemperState()


class StartedState(_Section):
    """One of ``[[started]]``: game servers that a proxy has started.

    :param game: one of ``[[games]]``.
    :param condition: ``hanging``: they stand still; ``lost``: and the farm knows.
    """

    game: Name
    count: Count = 1
    condition: Literal["serving", "hanging", "lost"] = "serving"
    temper: TemperState = TemperState()


class BanState(_Section):
    """One of ``[[bans]]``.

    :param seconds: for how long; ``None``: for ever.
    """

    kind: Literal["player", "address"]
    subject: FilledText
    reason: str = ""
    seconds: Seconds | None = None


class ClientsState(_Section):
    """One of ``[[clients]]``: clients that are in.

    :param server: where: one of ``[[servers]]``; ``None``: wherever the farm sends them.
    :param game: which, where there are several and no server is named.
    :param player: who it is, with a ticket; ``None``: guests.
    """

    count: Count = 1
    server: Name | None = None
    game: Name | None = None
    player: Name | None = None

    @model_validator(mode="after")
    def _is_possible(self) -> ClientsState:
        if self.player is not None and self.count != 1:
            raise ValueError("a player can be in only once: count must be 1")
        if self.server is not None and self.game is not None:
            raise ValueError("the game is the server's: name one of both")
        return self


class _World(_Section):
    proxies: Annotated[int, Field(ge=1, le=16)] = 1


class _Farm(_Section):
    statements: Annotated[tuple[FilledText, ...], FROM_LIST] = ()


class _Own(_Section):
    world: _World = _World()
    servers: Annotated[tuple[ListedState, ...], FROM_LIST] = ()
    started: Annotated[tuple[StartedState, ...], FROM_LIST] = ()
    bans: Annotated[tuple[BanState, ...], FROM_LIST] = ()
    clients: Annotated[tuple[ClientsState, ...], FROM_LIST] = ()
    farm: _Farm = _Farm()


class State(_Own):
    """A state.

    :param name: for people.
    :param config: of the proxies, without :attr:`servers`: where those are is the world's to say.
    """

    name: str
    config: Config

    @property
    def proxies(self) -> int:
        """How many there are on the one farm."""
        return self.world.proxies

    @property
    def statements(self) -> tuple[str, ...]:
        """SQL that makes the farm's tables odd, last of all."""
        return self.farm.statements


def names() -> list[str]:
    """The states that come with gameproxy."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_state(name: str | Path) -> State:
    """Read a state.

    :param name: one of :func:`names`, or the path of a TOML file.
    :raises gameproxy.config.ConfigError: it cannot be read or used; with all that is wrong, each with its place.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = FOLDER / f"{name}.toml"
        if str(name) not in names():
            raise ConfigError([("", f"there is no state {name}: there are {', '.join(names())}")])
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError([(str(path), f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([(str(path), f"is not UTF-8 at byte {error.start}")]) from error
    return parse_state(text, path.stem)


def parse_state(text: str, name: str = "a state") -> State:
    """Read a state from the text of its file.

    :raises gameproxy.config.ConfigError: with all that is wrong.
    """
    document = read_document(text)
    own: dict[str, Any] = {key: document.pop(key) for key in _OWN if key in document}
    problems: list[Problem] = []
    if document.pop("folder", None) is not None:
        problems.append(("folder", "unknown key"))
    state = config = None
    try:
        state = _Own.model_validate(own)
    except ValidationError as error:
        problems += problems_in(error)
    try:
        config = Config.model_validate(document | _with_places(own))
    except ValidationError as error:
        # What is wrong with a server itself is told already.
        problems += [problem for problem in problems_in(error) if problem not in problems]
    if state is not None and config is not None:
        problems += _strangers(state, config)
        if not config.game_names:
            problems.append(("games", "there must be a game in [[games]] or in [[servers]]"))
    if problems or state is None or config is None:
        raise ConfigError(problems)
    config = config.model_copy(update={"servers": ()})
    return State(name=name, config=config, **{key: getattr(state, key) for key in _OWN})


def _with_places(own: dict[str, Any]) -> dict[str, Any]:
    """The servers as a configuration has them, for what it checks of them; anywhere."""
    servers = own.get("servers")
    if not isinstance(servers, list):
        return {}
    keys = ("id", "game", "capacity")
    return {
        "servers": [
            {key: server[key] for key in keys if key in server} | {"host": "127.0.0.1", "port": 1}
            for server in servers
            if isinstance(server, dict)
        ]
    }


def _strangers(state: _Own, config: Config) -> Iterator[Problem]:
    """Names that nothing in the state has."""
    started_games = [game.name for game in config.games]
    for index, started in enumerate(state.started):
        if started.game not in started_games:
            yield f"started[{index}].game", "is none of [[games]]"
    ids = [server.id for server in state.servers]
    for index, clients in enumerate(state.clients):
        if clients.server is not None and clients.server not in ids:
            yield f"clients[{index}].server", "is none of [[servers]]"
        if clients.game is not None and clients.game not in config.game_names:
            yield f"clients[{index}].game", "is neither of [[games]] nor of [[servers]]"
