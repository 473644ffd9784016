"""Memory that a process which stays would hold for ever and never use: of libraries, what they import on the side.

Called by the entrances before anything else is imported. Each is about insides of a library: where an upgrade changes
those, nothing is left out, and nothing breaks (figures: docs/performance.md).
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

#: Where SQLAlchemy's sessions live, and what their package takes from there (sqlalchemy/ext/asyncio/__init__.py).
SESSIONS = {
    "sqlalchemy.ext.asyncio.scoping": ("async_scoped_session",),
    "sqlalchemy.ext.asyncio.session": (
        "AsyncAttrs",
        "AsyncSession",
        "AsyncSessionTransaction",
        "async_object_session",
        "async_session",
        "async_sessionmaker",
        "close_all_sessions",
    ),
}


def leave_out() -> None:
    """What neither the webhook server nor a worker uses."""
    leave_out_command_line()
    leave_out_orm()


def leave_out_command_line() -> None:
    """httpx imports its command line, and with that rich and pygments (3 MB). It does without where that fails."""
    if "httpx" not in sys.modules:
        sys.modules["httpx._main"] = None  # type: ignore[assignment]  # by which an import of it fails


def leave_out_orm() -> None:
    """SQLAlchemy's asyncio comes with sessions, and these with the whole ORM (6 MB), of which the ledger uses nothing.

    Whoever asks for a session gets it, and the ORM is imported then.
    """
    if "sqlalchemy.ext.asyncio" in sys.modules:
        return
    for name, taken in SESSIONS.items():
        sys.modules[name] = stand_in = ModuleType(name)
        vars(stand_in).update(dict.fromkeys(taken))
    try:
        package = importlib.import_module("sqlalchemy.ext.asyncio")
    except ImportError:  # it takes something else from there now
        _forget()
        return
    _forget()
    home = {each: name for name, taken in SESSIONS.items() for each in taken}
    for each in home:
        delattr(package, each)

    def on_demand(each: str) -> object:
        if each not in home:
            raise AttributeError(f"module {package.__name__!r} has no attribute {each!r}")
        return getattr(importlib.import_module(home[each]), each)

    vars(package)["__getattr__"] = on_demand


def _forget() -> None:
    for name in SESSIONS:
        sys.modules.pop(name, None)


def share_letters() -> None:
    """text-unidecode, which Prefect needs for the names of blocks, has 65,536 strings for a few thousand different
    ones (4 MB)."""
    try:
        table = importlib.import_module("text_unidecode")
    except ImportError:
        return
    letters = getattr(table, "_replaces", None)
    if isinstance(letters, list):
        letters[:] = map(sys.intern, letters)
