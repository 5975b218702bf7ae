"""Having a world begin in a known state: by what proxies, players and operators do, not by writing into its insides."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gameproxy.config import ConfigError
from gameproxy.simulation.clients import Client, Clients
from gameproxy.simulation.stage import Stage
from gameproxy.simulation.states import StartedState, State, load_state

START_TIME: Final = 30.0
"""Seconds in which a started game server must be ready."""
LOSS_TIME: Final = 60.0
"""Seconds in which the farm must see that one hangs."""
_ACTOR: Final = "the state"


def hydrate(world: Stage, name: str | Path | State) -> Clients:
    """Have a world begin in a state.

    :return: the clients that are in already.
    :raises gameproxy.config.ConfigError: there is no such state, or something is wrong with it.
    """
    state = name if isinstance(name, State) else load_state(name)
    world.configure(state)
    world.start()
    world.write("hydrate", state.name)
    started = [_start(world, group) for group in state.started]
    clients = _let_in(world, state)
    for listed in state.servers:
        if listed.condition == "hanging":
            world.server(listed.id).hang()
        elif listed.condition == "down":
            world.server(listed.id).kill()
    for group, ids in zip(state.started, started, strict=True):
        if group.condition != "serving":
            for id in ids:
                world.server(id).hang()
    lost = [
        id
        for group, ids in zip(state.started, started, strict=True)
        for id in ids
        if group.condition == "lost"
    ]
    if lost:
        world.run_until(
            lambda: all(world.farm.servers()[id] == "lost" for id in lost),
            LOSS_TIME,
            "the farm knows which game servers are lost",
        )
    _ban(world, state)
    _make_odd(world, state)
    world.hydrated()
    return clients


def _start(world: Stage, group: StartedState) -> list[str]:
    """Have game servers started, one after the other, so that each is as it should be."""
    ids = []
    for _ in range(group.count):
        temper = group.temper.as_temper
        id = world.start_server(group.game, temper)
        ids.append(id)
        if temper.start_delay is not None:
            _await_state(world, id, "ready", START_TIME + temper.start_delay)
    return ids


def _await_state(world: Stage, id: str, state: str, within: float) -> None:
    world.run_until(
        lambda: world.farm.servers()[id] == state, within, f"game server {id} is {state}"
    )


def _let_in(world: Stage, state: State) -> Clients:
    made: list[Client] = []
    for group in state.clients:
        with _only(world, group.server):
            game = group.game
            if group.server is not None:
                game = next(server.game for server in state.servers if server.id == group.server)
            clients = world.clients.batch(group.count, player=group.player, game=game)
            world.assert_reached(clients, server=True)
        made.extend(clients)
    return Clients(made)


@contextmanager
def _only(world: Stage, server: str | None) -> Iterator[None]:
    """Let the farm send clients to one game server alone: the other ready ones are drained meanwhile."""
    if server is None:
        yield
        return
    others = world.execute(
        "SELECT id FROM game_servers WHERE state = 'ready' AND id <> :id ORDER BY id", id=server
    )
    for (other,) in others:
        world.execute("UPDATE game_servers SET state = 'draining' WHERE id = :id", id=other)
    yield
    for (other,) in others:
        world.execute("UPDATE game_servers SET state = 'ready' WHERE id = :id", id=other)


def _ban(world: Stage, state: State) -> None:
    for ban in state.bans:
        world.execute(
            "INSERT INTO bans (kind, subject, reason, actor, created_at, expires_at)"
            " VALUES (:kind, :subject, :reason, :actor, :now, :now + :seconds)",
            kind=ban.kind,
            subject=ban.subject,
            reason=ban.reason,
            seconds=ban.seconds,
            actor=_ACTOR,
        )


def _make_odd(world: Stage, state: State) -> None:
    for index, statement in enumerate(state.statements):
        try:
            world.execute(statement)
        except sqlite3.Error as error:
            raise ConfigError([(f"farm.statements[{index}]", str(error))]) from error
