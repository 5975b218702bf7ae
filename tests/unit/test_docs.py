"""docs/*.md and README: all code in them is run, or says why not"""

from __future__ import annotations

import ast
import re
import sqlite3
from pathlib import Path

import pytest

from gameproxy.config import parse
from gameproxy.farm.upgrades import upgrade
from gameproxy.simulation.states import parse_state
from tests.pages import DOCS, ROOT, TOLD, Block, blocks_of

PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
PLAYED = ["docs/gameservers.md"]
"""Pages whose files a test of their own plays: test_gameserver_docs."""
BLOCKS = [
    (path.relative_to(ROOT).as_posix(), block)
    for path in PAGES
    for block in blocks_of(path.read_text("utf-8"))
]


def of(*languages: str) -> list[object]:
    """The blocks in these languages, each a parameter of a test."""
    return [
        pytest.param(page, block, id=f"{page}:{block.line}")
        for page, block in BLOCKS
        if block.language.split()[0] in languages
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_block_is_seen(path: Path) -> None:
    """Each fence belongs to a block in a language that is tested below; nothing is code by its indentation alone."""
    text = path.read_text("utf-8")
    blocks = blocks_of(text)
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(blocks)
    known = {
        "console",
        "python",
        "toml",
        "sql",
        "text",
        "{literalinclude}",
        "{toctree}",
        "{eval-rst}",
    }
    assert {block.language.split()[0] for block in blocks} <= known
    bare = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"^(?![ ]*[-*\d]).*\n\n {4}\S", bare, re.MULTILINE)


@pytest.mark.parametrize(("page", "block"), of("console"))
def test_commands(page: str, block: Block) -> None:
    """Commands are on a page that is played, or say why they are not."""
    assert page in TOLD or block.why


@pytest.mark.parametrize(("page", "block"), of("python"))
def test_python(page: str, block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Programs are files of a page that is played; what is no file runs as it is, or says why not."""
    if block.why:
        compile(block.text, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    elif block.file is not None:
        assert page in TOLD + PLAYED
    else:
        monkeypatch.chdir(tmp_path)
        exec(compile(block.text, page, "exec"), {"__name__": page})


@pytest.mark.parametrize(("page", "block"), of("toml"))
def test_configurations(page: str, block: Block, tmp_path: Path) -> None:
    """Configurations, and parts of them, and states of simulated worlds have no errors."""
    if page == "docs/simulation.md":
        parse_state(block.text)
    else:
        parse(block.text, tmp_path)


@pytest.mark.parametrize(("page", "block"), of("sql"))
def test_sql(page: str, block: Block) -> None:
    """Statements fit the farm's tables."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    cursor = database.cursor()
    upgrade(cursor)
    for statement in block.text.split(";"):
        if statement.strip():
            values = (None,) * statement.count("?")
            cursor.execute(f"EXPLAIN {statement}", values)
    database.close()


@pytest.mark.parametrize(("page", "block"), of("{literalinclude}"))
def test_files_shown(page: str, block: Block) -> None:
    """Files that a page shows are there, and a test names them, or their language."""
    file = DOCS / block.language.split()[1]
    assert file.is_file()
    tests = [path.read_text("utf-8") for path in (ROOT / "tests").glob("*/test_*.py")]
    assert any(file.name in test or f'"{file.parent.name}"' in test for test in tests)


def test_links_of_the_readme() -> None:
    """They lead to files that are there; Sphinx sees to those of the other pages."""
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
