"""The local stack: everything started in order, watched, and stopped in reverse."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import IO, Self

from tidings.local import environment, keeper, ports
from tidings.local.config import Part, StackConfig
from tidings.local.environment import Addresses
from tidings.local.errors import PartFailed
from tidings.local.folder import DataFolder, write_private
from tidings.local.graph import run_graph
from tidings.local.plan import Plan
from tidings.local.processes import Command, Process, describe

#: Processes of one stage stop together, and the stages after each other.
STOP_STAGES = ((Part.WEB, Part.WORKER), (Part.SANDBOX, Part.PREFECT), (Part.POSTGRES,))
#: How long a process that was restarted must live before its next end counts as its first again.
STEADY = 60.0
LONGEST_PAUSE = 30.0

Say = Callable[[str], None]


def _quiet(message: str) -> None:
    """Says nothing."""


class Stack:
    """`async with Stack(config) as stack:` starts it all; leaving stops it all.

    Use it in a thread that lives as long as the stack: on Linux the end of that thread ends its processes.
    """

    def __init__(self, config: StackConfig, *, say: Say = _quiet) -> None:
        self.config = config
        self.say = say
        self.folder = DataFolder(config.data)
        #: Seconds until each part was ready and each step done, and "total".
        self.timings: dict[str, float] = {}
        self._mark = f"{uuid.uuid4().hex}"
        self._processes: dict[str, Process] = {}
        self._steps: dict[str, Process] = {}
        self._keeper: subprocess.Popen[str] | None = None
        self._addresses: Addresses | None = None
        #: Processes that are being stopped or restarted on purpose: not the supervisor's to restart.
        self._held: set[str] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> Addresses:
        if self._addresses is None:
            raise RuntimeError("the stack has not been started")
        return self._addresses

    @property
    def environment(self) -> dict[str, str]:
        """What the product's processes are given beside the user's own environment."""
        return environment.product(self.addresses, self.folder)

    def environment_beside(self, mark: str) -> dict[str, str]:
        """What a process beside the stack's own is given, with nothing of the user's own settings."""
        base = environment.base_environment(os.environ, mark, without=environment.SETTINGS)
        return {**base, **self.environment}

    async def tidings(self, *arguments: str, mark: str, **env: str) -> tuple[int, str]:
        """How `tidings …` ends, and all that it says, with these settings beside the stack's."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tidings", *arguments,
            env={**self.environment_beside(mark), "COLUMNS": "250", **env}, cwd=self.folder.run,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        return await process.wait(), said.decode()

    @property
    def names(self) -> list[str]:
        """The processes that stay, in the order of their start."""
        return list(self._processes)

    def pid(self, name: str) -> int | None:
        return self._processes[name].pid

    def alive(self, name: str) -> bool:
        return self._processes[name].alive

    def refuse_dead(self) -> None:
        """Raises PartFailed for a process that ended without being told to."""
        for name, process in self._processes.items():
            if name not in self._held:
                process.refuse_dead()

    def tails(self, lines: int = 15) -> dict[str, str]:
        """The end of each log, of the steps too."""
        return {name: process.tail(lines) for name, process in (self._steps | self._processes).items()}

    # -- start and stop --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Everything is up and ready; or everything is stopped again and the reason raised."""
        began = time.monotonic()
        self.timings.clear()
        self.folder.open()
        try:
            self._settle()
            plan = Plan(self.addresses, self.folder, self._mark, self._start_process, self._run_step)
            await run_graph(plan.nodes())
        except BaseException:
            await self.stop()
            raise
        write_private(self.folder.stack_env, environment.shell_lines(self.environment))
        self.timings["total"] = time.monotonic() - began

    async def stop(self) -> None:
        """Ask in reverse order, kill what does not end, and leave nothing behind."""
        self._held.update(self._processes)
        for process in self._steps.values():
            process.kill()
        for stage in STOP_STAGES:
            chosen = [p for name, p in self._processes.items() if name.partition("-")[0] in stage]
            await asyncio.gather(*(process.stop() for process in chosen))
        await self._end_keeper()
        self.folder.stack_env.unlink(missing_ok=True)
        self.folder.close()

    def _settle(self) -> None:
        self.config = ports.settle(self.config)
        self._addresses = Addresses(self.config, self.folder.secret("postgres"))
        self.folder.rotate_logs()
        self._start_keeper()

    async def _start_process(self, command: Command) -> None:
        process = self._processes[command.name] = Process(command, self._register)
        await self._ready(process)

    async def _run_step(self, command: Command) -> None:
        began = time.monotonic()
        process = self._steps[command.name] = Process(command, self._register)
        await process.run()
        self._took(command.name, began)

    async def _ready(self, process: Process) -> None:
        began = time.monotonic()
        await process.start()
        self._took(process.name, began)

    def _took(self, name: str, began: float) -> None:
        self.timings[name] = time.monotonic() - began
        self.say(f"{name} ready after {self.timings[name]:.1f} s")

    # -- kill and restart ------------------------------------------------------------------------------------

    def kill(self, name: str, *, group: bool = True) -> None:
        """SIGKILL now, without a word; `group=False` leaves what the process itself had started."""
        self._processes[name].kill(group=group)

    async def stop_one(self, name: str) -> None:
        """Stop one process as the whole stack would, and leave it stopped."""
        self._held.add(name)
        await self._processes[name].stop()

    async def restart(self, name: str) -> None:
        """Stop it if it runs, start it with the same port and data, wait until it is ready."""
        self._held.add(name)
        try:
            await self._processes[name].stop()
            await self._ready(self._processes[name])
        finally:
            self._held.discard(name)

    async def supervise(self) -> None:
        """Restart what ends by itself, each time after a longer pause. Runs until it is cancelled."""
        async with asyncio.TaskGroup() as watchers:
            for name in self.names:
                watchers.create_task(self._watch(name))

    async def _watch(self, name: str) -> None:
        process, pause = self._processes[name], 0.0
        while True:
            await asyncio.sleep(0.3)
            if process.alive or name in self._held:
                continue
            pause = 0.0 if time.monotonic() - process.started > STEADY else pause
            self.say(f"{name} ended with {describe(process.exit_code or 0)}; restarting it in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, max(1.0, pause * 2))
            await self._revive(name)

    async def _revive(self, name: str) -> None:
        if name in self._held or self.alive(name):
            return
        try:
            await self.restart(name)
        except PartFailed as error:
            self.say(str(error))

    # -- the keeper ------------------------------------------------------------------------------------------

    def _start_keeper(self) -> None:
        """It ends what is left when this process ends, however it ends."""
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, f"{environment.MARK}={self._mark}"],
            stdin=subprocess.PIPE,
            text=True,
            cwd="/",
            start_new_session=True,
        )

    def _register(self, line: str) -> None:
        if self._keeper and self._keeper.stdin:
            _tell(self._keeper.stdin, line)

    async def _end_keeper(self) -> None:
        if self._keeper and self._keeper.stdin:
            self._keeper.stdin.close()
            await asyncio.to_thread(self._keeper.wait)
            self._keeper = None


def _tell(keeper_input: IO[str], line: str) -> None:
    keeper_input.write(line + "\n")
    keeper_input.flush()
