"""One supervised process: started with clean signals in a group of its own, watched, stopped, killed."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tidings.local.errors import NotReady, PartFailed

TAIL_LINES = 15
PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: Loaded here and not in the child, where between fork and exec nothing should be looked up.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

Probe = Callable[[], Awaitable[None]]
#: Told "+group" and "-group" as process groups come and go.
Register = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Command:
    """How a process is started and stopped."""

    name: str
    args: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    #: Raises NotReady until the process does its work; None for commands that end by themselves.
    ready: Probe | None = None
    timeout: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 4.0
    #: The user and group to run as; None for one's own.
    user: tuple[int, int] | None = None


@dataclass
class Process:
    """A running Command. Call only from the thread that lives as long as the stack (see `_clean_start`)."""

    command: Command
    register: Register
    popen: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    _group: int | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def pid(self) -> int | None:
        return self.popen.pid if self.popen else None

    @property
    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self.popen.poll() if self.popen else None

    def spawn(self) -> None:
        """Start it; whatever is left of an earlier start is killed first."""
        self.kill()
        command = self.command
        uid, gid = command.user or (None, None)
        with command.log.open("ab") as log:
            self.popen = subprocess.Popen(
                command.args,
                env=dict(command.env),
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
                preexec_fn=_clean_start(os.getpid(), command.stop_signal),
            )
        self.started = time.monotonic()
        self._group = self.popen.pid
        self.register(f"+{self._group}")

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        self.spawn()
        await self.wait_ready()

    async def wait_ready(self) -> None:
        ready, reason = self.command.ready, "it did not answer"
        deadline = time.monotonic() + self.command.timeout
        while ready:
            self.refuse_dead()
            try:
                await ready()
            except NotReady as error:
                reason = str(error) or reason
            else:
                self.refuse_dead()  # what answered may be another program on the same port
                return
            if time.monotonic() > deadline:
                raise PartFailed(self.name, f"was not ready after {self.command.timeout:g} s: {reason}", self.tail())
            await asyncio.sleep(0.05)

    async def run(self) -> None:
        """Start it and wait until it has ended well."""
        self.spawn()
        deadline = time.monotonic() + self.command.timeout
        while self.alive:
            if time.monotonic() > deadline:
                self.kill()
                raise PartFailed(self.name, f"had not ended after {self.command.timeout:g} s", self.tail())
            await asyncio.sleep(0.05)
        self._forget()
        if self.exit_code:
            raise PartFailed(self.name, f"ended with {describe(self.exit_code)}", self.tail())

    async def stop(self) -> None:
        """Ask it to end; kill its group when it has not by then."""
        if self.popen and self.alive:
            self.popen.send_signal(self.command.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self.popen.wait, self.command.grace)
        self.kill()

    def kill(self, *, group: bool = True) -> None:
        """SIGKILL for the process, and for everything in its group that it started."""
        if self.popen is None or self._group is None:
            return
        if not group:
            self.popen.kill()
            self.popen.wait()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group, signal.SIGKILL)
        self.popen.wait()
        self._forget()

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The end of what it logged."""
        return tail(self.command.log, lines)

    def _forget(self) -> None:
        if self._group is not None:
            self.register(f"-{self._group}")
            self._group = None

    def refuse_dead(self) -> None:
        code = self.exit_code
        if code is not None:
            raise PartFailed(self.name, f"ended early with {describe(code)}", self.tail())


def describe(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    if not log.is_file():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _clean_start(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    """What the child does before it becomes the program.

    Default handlers: below a non-interactive shell's background job SIGINT is inherited as ignored, and then
    Prefect cannot be stopped by SIGTERM either. On Linux the kernel signals the child when the *thread* that
    started it ends; set after the change of user, which would clear it.
    """

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if LIBC is not None:
            LIBC.prctl(PR_SET_PDEATHSIG, int(death_signal))
            if os.getppid() != parent:  # it ended before the line above
                os._exit(1)

    return prepare
