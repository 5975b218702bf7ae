"""docs/api: complete, and with an explanation for each name"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from zope.interface.interface import InterfaceClass

from tests.pages import DOCS, blocks_of

PUBLIC = (
    "gameserver",
    "client",
    "loops",
    "service",
    "host",
    "config",
    "interfaces",
    "reasons",
    "messages",
    "handshake",
    "framing",
    "frame_format",
    "testing",
)
"""Modules of which nothing may be missing."""
INTERNAL = ("bad_length",)
"""But what these modules offer to others of gameproxy's own."""
_MODULE = re.compile(r"^\.\. automodule:: (\S+)\n   :members:(.*)$", re.MULTILINE)
_NAME = re.compile(r"^\.\. auto(?:class|function|data):: (\S+)\.(\w+)", re.MULTILINE)


def public_names(module: ModuleType) -> list[str]:
    """What a module says is public, else its own classes and functions."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            inspect.isclass(value) or inspect.isfunction(value) or isinstance(value, InterfaceClass)
        )
        and value.__module__ == module.__name__
    ]


def listed() -> Iterator[tuple[str, str]]:
    """All modules and names of the page."""
    page = (DOCS / "api.md").read_text("utf-8")
    yield from _NAME.findall(page)
    for module, names in _MODULE.findall(page):
        for name in names.split(",") if names.strip() else public_names(import_module(module)):
            yield module, name.strip()


LISTED = sorted(set(listed()))
OBJECTS = [getattr(import_module(module), name) for module, name in LISTED]


@pytest.mark.parametrize("module", PUBLIC)
def test_nothing_is_missing(module: str) -> None:
    """Each public name is on the page, under this module or the one that it comes from."""
    own = import_module(f"gameproxy.{module}")
    there = {name for where, name in LISTED if where == own.__name__}
    missing = [
        name
        for name in public_names(own)
        if name not in (*there, *INTERNAL) and not any(getattr(own, name) is one for one in OBJECTS)
    ]
    assert missing == []


@pytest.mark.parametrize(("module", "name"), LISTED)
def test_all_is_explained(module: str, name: str) -> None:
    """Each class and function, and each public method of a class, has a docstring: Sphinx leaves out what has none."""
    thing = getattr(import_module(module), name)
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return
    assert inspect.getdoc(thing)
    if inspect.isclass(thing) and module.removeprefix("gameproxy.") in PUBLIC:
        bare = [
            member
            for member, value in vars(thing).items()
            if not member.startswith("_")
            and (inspect.isfunction(value) or isinstance(value, property))
            and not inspect.getdoc(getattr(thing, member))
        ]
        assert bare == []


def programs() -> Iterator[str]:
    """All Python that the pages show."""
    for path in DOCS.glob("*.md"):
        for block in blocks_of(path.read_text("utf-8")):
            if block.language == "python" and not block.why:
                yield block.text
    for path in (DOCS / "examples").glob("*.[pt]*"):
        yield Path(path).read_text("utf-8")


@pytest.mark.parametrize(("module", "name"), LISTED)
def test_interfaces_are_listed_by_name(module: str, name: str) -> None:
    """Sphinx leaves zope's interfaces out of a module's members: they need an ``autodata`` of their own."""
    page = (DOCS / "api.md").read_text("utf-8")
    is_interface = isinstance(getattr(import_module(module), name), InterfaceClass)
    assert not is_interface or f".. autodata:: {module}.{name}\n" in page


def test_pages_use_what_is_public() -> None:
    """What the programs on the pages import is on this page; but for the games that come with gameproxy."""
    imported = {
        (statement.module, alias.name)
        for program in programs()
        for statement in ast.walk(ast.parse(program))
        if isinstance(statement, ast.ImportFrom)
        and (statement.module or "").startswith("gameproxy.")
        for alias in statement.names
    }
    assert imported
    strange = {
        (module, name)
        for module, name in imported - set(LISTED)
        if module is not None and not module.startswith("gameproxy.arena")
    }
    assert strange == set()
