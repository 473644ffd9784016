"""Run steps that need each other, each as soon as what it needs is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

Action = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Node:
    action: Action
    #: Names of other nodes; those that are not in the graph are not waited for.
    needs: tuple[str, ...] = ()


async def run_graph(nodes: Mapping[str, Node]) -> None:
    """All of them, or the first error; whatever else was under way then is cancelled."""
    done = {name: asyncio.Event() for name in nodes}

    async def run(name: str, node: Node) -> None:
        for need in node.needs:
            if need in done:
                await done[need].wait()
        await node.action()
        done[name].set()

    try:
        async with asyncio.TaskGroup() as group:
            for name, node in nodes.items():
                group.create_task(run(name, node))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
