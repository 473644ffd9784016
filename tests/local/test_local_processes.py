"""One supervised process: how it starts, ends, and takes along what it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_stacks import eventually

from tidings.local import keeper, procfs
from tidings.local.errors import NotReady, PartFailed
from tidings.local.processes import Command, Process

Make = Callable[..., Process]
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(60)"
PARENT = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid); time.sleep(60)"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Process] = []

    def build(code: str, **given: Any) -> Process:
        command = Command(
            name="part",
            args=[sys.executable, "-u", "-c", code],
            env=dict(os.environ),
            cwd=tmp_path,
            log=tmp_path / "part.log",
            **given,
        )
        made.append(Process(command, lambda line: None))
        return made[-1]

    yield build
    for process in made:
        process.kill()


async def never() -> None:
    raise NotReady("the door is shut")


async def test_an_early_end__names_the_part_its_exit_code_and_its_log(make: Make) -> None:
    process = make("print('no such table'); raise SystemExit(3)", ready=never)

    with pytest.raises(PartFailed, match=r"part ended early with exit code 3(.|\n)*no such table"):
        await process.start()


async def test_a_process_that_never_becomes_ready__says_why(make: Make) -> None:
    process = make("import time; time.sleep(60)", ready=never, timeout=0.3)

    with pytest.raises(PartFailed, match=r"not ready after 0.3 s: the door is shut"):
        await process.start()


async def test_a_step_that_fails__names_its_exit_code(make: Make) -> None:
    with pytest.raises(PartFailed, match="exit code 1"):
        await make("raise SystemExit('templates are missing')").run()


async def test_a_step_that_hangs__is_ended(make: Make) -> None:
    process = make("import time; time.sleep(60)", timeout=0.3)

    with pytest.raises(PartFailed, match="had not ended"):
        await process.run()

    assert not process.alive


async def test_stop__kills_what_does_not_listen(make: Make) -> None:
    process = make(DEAF, grace=0.3)
    process.spawn()
    assert await eventually(lambda: "deaf" in process.tail())

    await process.stop()

    assert process.exit_code == -signal.SIGKILL


async def test_kill__takes_along_what_the_process_started(make: Make) -> None:
    process = make(PARENT)
    process.spawn()
    assert await eventually(lambda: process.tail().isdigit())
    grandchild = int(process.tail())

    process.kill()

    assert await eventually(lambda: not procfs.exists(grandchild))


def test_signals_that_the_parent_ignores__work_in_the_child(make: Make) -> None:
    """As below a shell's background job, where a Prefect server would not heed SIGTERM."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = make("import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)")
        process.spawn()
        assert process.popen
        process.popen.wait(10)
    finally:
        signal.signal(signal.SIGINT, before)

    assert process.tail() == "True"


def _started(mark: str, *, session: bool) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], env={**os.environ, "MARK": mark}, start_new_session=session)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not show a process's environment")
def test_the_keeper__ends_marked_processes_in_groups_of_their_own() -> None:
    mark = f"{os.getpid()}-{time.monotonic()}"
    stray, other = _started(mark, session=True), _started("other", session=True)
    watch = subprocess.Popen([sys.executable, keeper.__file__, f"MARK={mark}"], stdin=subprocess.PIPE)

    watch.communicate(b"")

    assert stray.wait(1) == -signal.SIGTERM
    assert other.poll() is None
    other.kill()
    other.wait()


def test_the_keeper__ends_the_groups_that_were_left() -> None:
    left, gone = _started("", session=True), _started("", session=True)
    watch = subprocess.Popen([sys.executable, keeper.__file__, "MARK=none"], stdin=subprocess.PIPE)
    threading.Thread(target=left.wait).start()  # as init would: what has ended is not there any more

    watch.communicate(f"+{left.pid}\n+{gone.pid}\n-{gone.pid}\n".encode())

    assert left.wait(1) == -signal.SIGTERM
    assert gone.poll() is None
    gone.kill()
    gone.wait()
