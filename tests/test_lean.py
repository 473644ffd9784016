"""What is left out of a process, each in one of its own: what is imported once stays."""

from __future__ import annotations

import subprocess
import sys

from tidings.settings import ROOT


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.strip()


def test_the_orm__is_not_there_until_somebody_asks_for_a_session() -> None:
    code = (
        "import sys\nfrom tidings import lean\nlean.leave_out()\n"
        "from sqlalchemy.ext.asyncio import create_async_engine\n"
        "import sqlalchemy.ext.asyncio as package\n"
        "print('sqlalchemy.orm' in sys.modules, hasattr(package, 'nothing'))\n"
        "from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker\n"
        "engine = create_async_engine('postgresql+asyncpg://nobody@127.0.0.1:9/nothing')\n"
        "print('sqlalchemy.orm' in sys.modules, isinstance(async_sessionmaker(engine)(), AsyncSession))"
    )

    assert said(code).splitlines() == ["False False", "True True"]


def test_an_sqlalchemy_that_is_made_up_otherwise__is_imported_whole() -> None:
    code = (
        "import sys\nfrom tidings import lean\n"
        "lean.SESSIONS['sqlalchemy.ext.asyncio.session'] = ('AsyncSession',)\nlean.leave_out()\n"
        "from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine\n"
        "print(AsyncSession.__module__, 'sqlalchemy.orm' in sys.modules)"
    )

    assert said(code) == "sqlalchemy.ext.asyncio.session True"


def test_httpx__works_without_its_command_line() -> None:
    code = (
        "import sys\nfrom tidings import lean\nlean.leave_out()\nimport httpx\n"
        "answer = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(204))).get('http://a.test')\n"
        "print(answer.status_code, 'rich' in sys.modules)"
    )

    assert said(code) == "204 False"


def test_the_table_of_letters__says_the_same_with_fewer_strings() -> None:
    code = (
        "import text_unidecode\nfrom tidings import lean\nwords = 'Ærøskøbing 北京 Привет ½'\n"
        "before = text_unidecode.unidecode(words)\nstrings = len({id(each) for each in text_unidecode._replaces})\n"
        "lean.share_letters()\n"
        "left = len({id(each) for each in text_unidecode._replaces})\n"
        "print(before == text_unidecode.unidecode(words), strings > 2 * left)"
    )

    assert said(code) == "True True"
