"""`make demo`: the whole stack in a fresh folder, real webhooks, and every mail followed to its delivery."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape

from tidings.campaign import Campaigns, Webhook
from tidings.errors import TidingsError
from tidings.local import report, services
from tidings.local.config import StackConfig
from tidings.local.demo_ledger import Ledger, Mail, failed_runs, inbox
from tidings.local.entrance import campaigns_of
from tidings.local.environment import Addresses, bearer
from tidings.local.stack import Stack

POLL_SECONDS = 0.5
LOG_LINES = 15


class DemoFailed(TidingsError):
    """The demo cannot show what it is for."""


@dataclass(frozen=True)
class Posted:
    """A webhook that was sent, and the mails that have to come of it."""

    webhook: Webhook
    email: str
    templates: tuple[str, ...]


@dataclass
class Demo:
    """One run against a started stack."""

    stack: Stack
    campaigns: Campaigns
    console: Console
    client: httpx.AsyncClient
    posted: list[Posted] = field(default_factory=list)

    @property
    def addresses(self) -> Addresses:
        return self.stack.addresses

    @property
    def expected(self) -> set[tuple[str, str]]:
        return {(posted.email, template) for posted in self.posted for template in posted.templates}

    async def run(self, patience: float) -> int:
        ledger = Ledger(self.addresses)
        try:
            await self._post_all()
            mails = await self._follow(ledger, patience)
            return await self._conclude(ledger, mails)
        finally:
            await ledger.close()

    async def _post_all(self) -> None:
        self.console.print("\nPosting one webhook of each kind:")
        for _, webhook in self.campaigns.webhooks:
            await self._post(webhook)
        if len({posted.email for posted in self.posted}) < len(self.posted):
            raise DemoFailed("two examples of the campaigns have the same address; the demo needs different ones")

    async def _post(self, webhook: Webhook) -> None:
        body = next(iter(webhook.examples.values()))
        answer = await self.client.post(
            f"{self.addresses.web}/webhook/{webhook.path}", json=body, headers=bearer(self.stack.environment)
        )
        said = f"POST /webhook/{webhook.path} → {answer.status_code} {answer.text.strip()[:300]}"
        self.console.print(f"  {escape(said)}", highlight=False, soft_wrap=True)
        if not answer.is_success:
            raise DemoFailed(said)
        self.posted.append(expectation(self.campaigns, webhook, body))

    async def _follow(self, ledger: Ledger, patience: float) -> list[Mail]:
        """The demo's mails as soon as all are delivered, or as they stand when time is up."""
        expected = self.expected
        deadline = time.monotonic() + patience
        self.console.print(f"\n{len(expected)} mails are to follow:")
        with report.Arrivals(self.console, len(expected)) as arrivals:
            while True:
                self.stack.refuse_dead()
                mails = await self._mails(ledger)
                done = {(m.email, m.template) for m in mails if m.done}
                arrivals.show(len(done & expected))
                if done >= expected or time.monotonic() > deadline:
                    return mails
                await asyncio.sleep(POLL_SECONDS)

    async def _mails(self, ledger: Ledger) -> list[Mail]:
        arrived = await inbox(self.client, self.addresses)
        return [replace(mail, arrived=arrived.get(mail.provider_id or "")) for mail in await ledger.mails()]

    async def _conclude(self, ledger: Ledger, mails: list[Mail]) -> int:
        self.console.print(report.mail_table(mails))
        problems = missing(self.expected, mails) + await self._disagreements(mails)
        if not problems:
            self.console.print(
                f"[bold green]All {len(mails)} mails were delivered[/bold green], each once; the ledger and "
                f"the inbox agree. The latest left {report.latest(mails):.1f} s after it was due."
            )
            return 0
        report.show_list(self.console, "The demo failed", problems)
        await self._explain(ledger)
        return 1

    async def _disagreements(self, mails: list[Mail]) -> list[str]:
        """Sends that one side knows of and the other does not (F5), and mails nobody asked for."""
        arrived = await inbox(self.client, self.addresses)
        sent = {mail.provider_id for mail in mails if mail.provider_id}
        extra = [f"{m.email} {m.template}" for m in mails if (m.email, m.template) not in self.expected]
        return [
            *(f"the ledger has sent {known}, and the inbox does not have it" for known in sent - arrived.keys()),
            *(f"the inbox has {id} ({arrived[id].subject}), unknown to the ledger" for id in arrived.keys() - sent),
            *(f"a mail that nothing asked for: {which}" for which in extra),
        ]

    async def _explain(self, ledger: Ledger) -> None:
        report.show_list(self.console, "Not ready", await services.not_ready(self.addresses))
        report.show_list(self.console, "Webhooks not handled", await ledger.unhandled())
        report.show_list(self.console, "Failed Prefect runs", await failed_runs(self.client, self.addresses))
        report.show_tails(self.console, self.stack.tails(LOG_LINES))


async def demo(config: StackConfig, environ: Mapping[str, str], console: Console, *, patience: float) -> int:
    """0 when every mail was delivered, 1 with the reasons when not."""
    campaigns = campaigns_of(environ)
    console.print("Starting PostgreSQL, Prefect, the sandbox, a worker and the webhook server:")
    began = time.monotonic()
    async with (
        Stack(config, say=lambda text: console.print(f"  {escape(text)}", highlight=False)) as stack,
        httpx.AsyncClient(timeout=30, trust_env=False) as client,
    ):
        code = await Demo(stack, campaigns, console, client).run(patience)
    console.print(f"The demo took {time.monotonic() - began:.0f} s.", highlight=False)
    return code


def expectation(campaigns: Campaigns, webhook: Webhook, body: Mapping[str, Any]) -> Posted:
    """Whom this webhook makes mails for, and which. In testing all steps are still ahead."""
    payload = webhook.payload.model_validate(body)
    contact = payload.contact()
    if contact is None:
        raise DemoFailed(f"the first example of {webhook.path} names no contact")
    campaign = next(c for c in campaigns.values() if webhook in c.webhooks)
    sequence = next(s for s in campaign.sequences if s.name == webhook.sequence)
    elsewhere = payload.sent_elsewhere()
    started = payload.ignored_because() is None
    templates = tuple(t for n, t in enumerate(sequence.templates, 1) if started and n not in elsewhere)
    return Posted(webhook, contact.email.lower(), templates)


def missing(expected: set[tuple[str, str]], mails: list[Mail]) -> list[str]:
    """Each expected mail that was not delivered, with what the ledger says of it."""
    known = {(mail.email, mail.template): mail for mail in mails}
    return [
        f"{email} {template}: {_fate(known.get((email, template)))}"
        for email, template in sorted(key for key in expected if key not in known or not known[key].done)
    ]


def _fate(mail: Mail | None) -> str:
    if mail is None:
        return "not in the ledger: no enrolment has planned it"
    at_inbox = mail.arrived.last_event if mail.arrived else "not there"
    because = f" ({mail.reason})" if mail.reason else ""
    return f"{mail.state} in the ledger{because}, {at_inbox} in the inbox"
