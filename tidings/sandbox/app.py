"""The sandbox as one ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route

from .config import SandboxConfig
from .control import Control
from .gateway import Gateway
from .pages import Pages
from .senders_control import SenderControl
from .wire import Service
from .world import World

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def create_app(config: SandboxConfig) -> Starlette:
    """Each provider's API below its name (/notion, /calendly, …), control routes below /control, pages at the top."""
    world = World(config)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with world.at_work():
            yield

    routes = [
        _api("/resend", world.resend, world),
        _api("/notion", world.notion, world),
        _api("/calendly", world.calendly, world),
        _api("/calcom", world.calcom, world),
        _api("/stripe", world.stripe, world),
        *Control(world).routes(),
        *SenderControl(world).routes(),
        *Pages(world).routes(),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _api(base: str, service: Service, world: World) -> Route:
    gateway = Gateway(service, store=world.store, faults=world.faults, clock=world.config.clock)
    return Route(base + "/{path:path}", gateway.__call__, methods=METHODS)
