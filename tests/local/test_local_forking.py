"""The process that runs are forked from: works as multiprocessing's own does, and ends with its worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tidings.settings import ROOT

SCRIPT = """
import multiprocessing, os, signal, sys, time
from multiprocessing import forkserver, resource_tracker
sys.path.insert(0, {root!r})
from tidings.forking import start_fork_server

def nothing(): pass
def fail(): sys.exit(7)
def whose(pipe): pipe.send((os.getppid(), "decimal" in sys.modules)); pipe.close()

if __name__ == "__main__":
    start_fork_server(["decimal"])
    server = forkserver._forkserver._forkserver_pid
    context = multiprocessing.get_context("forkserver")

    def run(target, *args):
        process = context.Process(target=target, args=args)
        process.start()
        process.join()
        return process.exitcode

    ours, theirs = context.Pipe()
    codes = [run(nothing), run(fail), run(whose, theirs)]
    parent, imported = ours.recv()
    tracker = resource_tracker._resource_tracker._pid
    said = [open(f"/proc/{{pid}}/cmdline").read() for pid in (server, tracker, os.getpid())]
    print(server, tracker, codes, parent == server, imported, len(set(said)) == 1, flush=True)
    if "killed" in sys.argv:
        os.kill(server, signal.SIGKILL)
        time.sleep(0.3)
        print(run(nothing), run(fail), forkserver._forkserver._forkserver_pid != server, flush=True)
    sys.stdin.read()
"""


@contextmanager
def started(tmp_path_script: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, tmp_path_script, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def gone(pid: int) -> bool:
    """Whether the process ends within a few seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "worker.py"
    path.write_text(SCRIPT.format(root=str(ROOT)), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_fork_server_and_the_tracker__share_the_imports_and_end_with_their_worker(
    script: str, how: signal.Signals
) -> None:
    with started(script) as worker:
        assert worker.stdout
        server, tracker, rest = worker.stdout.readline().split(" ", 2)

        assert rest.strip() == "[0, 7, 0] True True True"
        worker.send_signal(how)
        worker.wait(5)
        assert gone(int(server))
        assert gone(int(tracker))


def test_a_fork_server_that_was_killed__is_started_anew(script: str) -> None:
    with started(script, "killed") as worker:
        assert worker.stdout
        worker.stdout.readline()

        assert worker.stdout.readline().strip() == "0 7 True"
