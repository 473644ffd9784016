"""What the stack starts, in which order, and what each piece needs before it can start."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tidings.local import environment, postgres, services
from tidings.local.config import Part, Step
from tidings.local.environment import Addresses
from tidings.local.folder import DataFolder
from tidings.local.graph import Action, Node
from tidings.local.processes import Command

DATABASES = ("tidings", "prefect")
#: The part that each step talks to, without which it is left out. A real Notion belongs to its people:
#: they run `tidings notion init` and `tidings templates push` themselves.
STEP_PART = {
    Step.MIGRATE: Part.POSTGRES,
    Step.NOTION_INIT: Part.SANDBOX,
    Step.TEMPLATES: Part.SANDBOX,
    Step.DEPLOY: Part.PREFECT,
}


@dataclass(frozen=True)
class Plan:
    """`start` starts a process that stays and waits until it is ready; `run` waits until it has ended."""

    addresses: Addresses
    folder: DataFolder
    mark: str
    start: Callable[[Command], Awaitable[None]]
    run: Callable[[Command], Awaitable[None]]
    known_workers: set[str] = field(default_factory=set)

    def nodes(self) -> dict[str, Node]:
        config = self.addresses.config
        nodes: dict[str, Node] = {
            Part.POSTGRES: Node(self._postgres),
            Part.PREFECT: Node(self._prefect, (Part.POSTGRES,)),
            Part.SANDBOX: Node(self._sandbox),
            Part.WEB: Node(self._web, (Part.POSTGRES, Part.SANDBOX, Step.MIGRATE, Step.NOTION_INIT)),
        }
        nodes = {name: node for name, node in nodes.items() if name in config.started}
        return {**nodes, **self._steps(), **self._workers()}

    def _steps(self) -> dict[str, Node]:
        config = self.addresses.config
        nodes: dict[str, Node] = {
            Step.MIGRATE: Node(self._step(Step.MIGRATE), (Part.POSTGRES,)),
            Step.NOTION_INIT: Node(self._notion_init, (Part.SANDBOX,)),
            Step.TEMPLATES: Node(self._step(Step.TEMPLATES), (Part.SANDBOX, Step.MIGRATE, Step.NOTION_INIT)),
            Step.DEPLOY: Node(self._step(Step.DEPLOY), (Part.PREFECT, Step.NOTION_INIT)),
        }
        wanted = {s for s in config.steps if STEP_PART[s] in config.started}
        return {name: node for name, node in nodes.items() if name in wanted}

    def _workers(self) -> dict[str, Node]:
        if Part.WORKER not in self.addresses.config.started:
            return {}
        # not the templates: their push takes as long as the rate limit says, and is waited for at the end
        needs = (Part.PREFECT, Step.MIGRATE, Step.NOTION_INIT, Step.DEPLOY)
        names = [Part.WORKER.value] + [f"{Part.WORKER}-{n}" for n in range(2, self.addresses.config.workers + 1)]
        return {name: Node(self._worker(name), needs) for name in names}

    # -- what each does --------------------------------------------------------------------------------------

    @property
    def _base(self) -> dict[str, str]:
        without: frozenset[str] = frozenset()
        if Part.SANDBOX in self.addresses.config.started:
            without = environment.NOTION_IDS
        if self.addresses.config.isolated:
            without = environment.SETTINGS
        return environment.base_environment(os.environ, self.mark, without=without)

    @property
    def _product(self) -> dict[str, str]:
        """Made anew for each command: notion-init adds to it."""
        return {**self._base, **environment.product(self.addresses, self.folder)}

    async def _postgres(self) -> None:
        port, password = self.addresses.config.postgres_port, self.addresses.postgres_password
        await _to_the_end(postgres.prepare, self.folder.postgres, password)
        log = self.folder.log(Part.POSTGRES)
        await self.start(postgres.command(self.folder.postgres, port, password, log=log, env=self._base))
        await postgres.create_databases(port, password, DATABASES)

    async def _prefect(self) -> None:
        await self.start(services.prefect(self.addresses, self.folder, self._base))

    async def _sandbox(self) -> None:
        await self.start(services.sandbox(self.addresses, self.folder, self._base))

    async def _web(self) -> None:
        await self.start(services.web(self.addresses, self.folder, self._product))

    def _worker(self, name: str) -> Action:
        async def start() -> None:
            await self.start(services.worker(name, self.addresses, self.folder, self._product, self.known_workers))

        return start

    def _step(self, step: Step) -> Action:
        async def run() -> None:
            await self.run(services.step(step, self.addresses, self.folder, self._product))

        return run

    async def _notion_init(self) -> None:
        if self.folder.notion_ids().keys() >= environment.NOTION_IDS:
            return
        root, file = await services.notion_root(self.addresses), str(self.folder.notion_env)
        await self.run(
            services.step(Step.NOTION_INIT, self.addresses, self.folder, self._product, parent=root, notion_env=file)
        )


async def _to_the_end(work: Callable[..., None], *args: object) -> None:
    """In a thread; when cancelled, only after it has ended: the folder must not be given back before."""
    running = asyncio.create_task(asyncio.to_thread(work, *args))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
