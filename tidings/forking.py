"""The process that runs are forked from, as a fork of the worker itself: what both have imported is there once.

multiprocessing's resource tracker, which its fork server needs, is one too."""

from __future__ import annotations

import gc
import importlib
import logging
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker, util
from typing import NoReturn

log = logging.getLogger("tidings.worker")


def start_fork_server(preload: Sequence[str]) -> None:
    """Import and prepare these modules, then start multiprocessing's fork server as a fork of this process.

    By itself multiprocessing starts it as a new interpreter, which imports everything a second time: 45 MB and some
    seconds of CPU at every start, and 5 MB for the tracker (docs/performance.md). A process with threads cannot be
    forked safely; then, and when one of them has died and is started anew, it is done multiprocessing's way. Call it
    before anything else.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(preload))
    for name in preload:
        module = importlib.import_module(name)
        if hasattr(module, "prepare"):
            module.prepare()
    if threading.active_count() > 1 or not hasattr(os, "fork"):
        log.warning("worker.imports_not_shared", extra={"threads": threading.active_count()})
        return
    gc.collect()
    gc.freeze()  # so that no collection writes to the memory that all share
    with suppress(AttributeError, OSError, ValueError):  # there may be none, or nobody who listens
        sys.stdout.flush()  # or the tracker would say it once more
    spawn = util.spawnv_passfds
    util.spawnv_passfds = _fork  # type: ignore[assignment]
    try:
        resource_tracker.ensure_running()
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = spawn


def _fork(_: str, arguments: Sequence[str], keep: Sequence[int]) -> int:
    """In the place of starting an interpreter with `-c COMMAND`: run the command in a fork."""
    pid = os.fork()
    if pid == 0:
        _serve(arguments[-1], keep)
    return pid


def _serve(command: str, keep: Sequence[int]) -> NoReturn:
    status = 1
    try:
        _close_all_but({0, 1, 2, *keep})
        exec(command, {})  # noqa: S102  (multiprocessing's own words, not anybody's input)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


def _close_all_but(kept: set[int]) -> None:
    """As an exec would: above all the other end of the pipe by which the server learns that its worker has ended."""
    first = 0
    for number in [*sorted(kept), os.sysconf("SC_OPEN_MAX")]:
        if first < number:  # an empty range from 0 would be taken for all there are
            os.closerange(first, number)
        first = number + 1
