"""The running sandbox: its parts wired together, and the settings they share."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from .calcom_api import Calcom
from .calendly_api import Calendly
from .config import SandboxConfig, Settings
from .faults import Faults
from .lifecycle import Lifecycle
from .notion_api import Notion
from .postman import Postman
from .resend_account import EMAIL_EVENTS, OTHER_EVENTS, new_secret
from .resend_api import Resend
from .store import TABLES, Store
from .stripe_api import Stripe

CHANGED = "settings"  # where changes through the control routes are kept
SECRET = "webhook_secret"  # noqa: S105 — the name under which a made-up secret is kept
DEFAULT_DOMAIN = "tidings.test"
#: the endpoint named on the command line, apart from those made through POST /webhooks
OWN_ENDPOINT = str(uuid.uuid5(uuid.NAMESPACE_URL, "tidings-sandbox-webhook"))


class World:
    """Everything one process holds."""

    def __init__(self, config: SandboxConfig) -> None:
        config.data_dir.mkdir(parents=True, exist_ok=True)
        self.config = config
        self.store = Store(config.data_dir / "sandbox.sqlite3")
        self.faults = Faults(self.store)
        self._settings = Settings(**(config.settings | (self.store.recall(CHANGED) or {})))
        shared: dict[str, Any] = {"settings": self.settings, "clock": config.clock}
        self.postman = Postman(self.store, **shared)
        self.lifecycle = Lifecycle(self.store, self.postman, **shared)
        self.resend = Resend(self.store, self.lifecycle, self.postman, **shared)
        self.notion = Notion(self.store, **shared)
        self.calendly = Calendly(self.store, self.postman, **shared)
        self.calcom = Calcom(self.store, self.postman, **shared)
        self.stripe = Stripe(self.store, self.postman, **shared)
        self._furnish()

    def settings(self) -> Settings:
        return self._settings

    def change(self, changes: dict[str, Any]) -> None:
        """Checked as a whole before any of it counts; kept, so that a restart does not undo it."""
        kept = (self.store.recall(CHANGED) or {}) | changes
        self._settings = Settings(**(self.config.settings | kept))
        self.store.remember(CHANGED, kept)
        self._furnish()
        self.postman.wake()

    def reset(self, *, settings: bool) -> None:
        """As on the first start. Changed settings stay unless `settings`; the secret always stays."""
        self.store.clear([table for table in TABLES if table != "kv"])
        if settings:
            self.store.remember(CHANGED, {})
            self._settings = Settings(**self.config.settings)
        for service in (self.calendly, self.calcom, self.stripe):
            service.reset()
        self.faults.clear()
        self.notion.reset()
        self._furnish()

    def _furnish(self) -> None:
        for service in (self.calendly, self.calcom, self.stripe):
            service.furnish()
        if DEFAULT_DOMAIN not in self.resend.domains.statuses():
            self.resend.domains.set_status(DEFAULT_DOMAIN, "verified")
        url = self._settings.webhook_url
        if not url:
            self.resend.endpoints.remove(OWN_ENDPOINT)
            return
        events = self._settings.webhook_events
        heard = [*EMAIL_EVENTS, *OTHER_EVENTS] if events is None else events
        self.resend.endpoints.put(OWN_ENDPOINT, url, self.webhook_secret(), heard)

    def webhook_secret(self) -> str:
        secret: str = self._settings.webhook_secret or self.store.recall(SECRET) or new_secret()
        self.store.remember(SECRET, secret)
        return secret

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Runs the lifecycle and the postman while the server serves."""
        tasks = [asyncio.create_task(self.lifecycle.run()), asyncio.create_task(self.postman.run())]
        for task in tasks:
            task.add_done_callback(_loud)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            self.store.close()


def _loud(task: asyncio.Task[None]) -> None:
    """A loop that died would leave mails undelivered in silence; the loop's handler prints its error."""
    if not task.cancelled() and (error := task.exception()):
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a sandbox loop died", "exception": error, "task": task}
        )
