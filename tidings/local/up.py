"""`make up`: the stack, kept running until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

from tidings.campaign import Campaigns, Webhook
from tidings.local import services
from tidings.local.config import Part, StackConfig
from tidings.local.entrance import campaigns_of
from tidings.local.environment import Addresses
from tidings.local.report import show_list
from tidings.local.stack import Stack
from tidings.settings import load_settings

#: The web server keeps a result for five seconds.
READINESS_TRIES, READINESS_PAUSE = 3, 6.0
YOU = "delivered+you@resend.dev"


async def up(config: StackConfig, environ: Mapping[str, str], console: Console) -> int:
    """Start, say where everything is, and look after it."""
    campaigns = campaigns_of(environ)
    if config.real_services:
        _check_real_settings()
    _say_which(config, environ, console)
    async with Stack(config, say=lambda text: console.print(f"  {escape(text)}", highlight=False)) as stack:
        console.print(_welcome(stack, campaigns), highlight=False, soft_wrap=True)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(stack.supervise())
                show_list(console, "Not ready yet", await _not_ready(stack.addresses))
        finally:
            console.print("stopping …")
    return 0


async def _not_ready(addresses: Addresses) -> list[str]:
    """What is not ready and stays so for a while: the first answers may only be a rate limit's."""
    for _ in range(READINESS_TRIES):
        await asyncio.sleep(READINESS_PAUSE)
        if not (problems := await services.not_ready(addresses)):
            return []
    return problems


def _check_real_settings() -> None:
    """Everything that the real services need, refused before anything starts rather than by each process."""
    load_settings(database_url="postgresql://127.0.0.1/tidings", prefect_api_url="http://127.0.0.1/api")


def _say_which(config: StackConfig, environ: Mapping[str, str], console: Console) -> None:
    if config.real_services:
        console.print("NOTION_TOKEN and RESEND_API_KEY are set: [bold]mails go to real people[/bold].")
        return
    console.print("Notion and Resend are the local sandbox: nothing leaves this machine.")
    for name, other in (("NOTION_TOKEN", "RESEND_API_KEY"), ("RESEND_API_KEY", "NOTION_TOKEN")):
        if environ.get(name):
            console.print(f"{name} is set and not used: the real services take {other} as well.")


def _welcome(stack: Stack, campaigns: Campaigns) -> str:
    at = stack.addresses
    lines = [f"\n[bold]Tidings is up[/bold] after {stack.timings['total']:.0f} s. Ctrl-C stops it.\n"]
    lines += [f"  {name:<10} {address}" for name, address in _places(at, stack.config)]
    lines += ["", "Try:\n", *(f"{escape(line)}\n" for line in curl_lines(at, campaigns, _token(stack)))]
    return "\n".join(lines)


def _places(at: Addresses, config: StackConfig) -> list[tuple[str, str]]:
    places = [("webhooks", f"{at.web}  (try them at {at.web}/docs)"), ("Prefect", at.prefect)]
    if Part.SANDBOX in config.started:
        places += [("inbox", f"{at.sandbox}/inbox"), ("funnel", f"{at.sandbox}/funnel")]
    return [*places, ("logs", f"{config.data}/logs"), ("settings", f"{config.data}/stack.env")]


def _token(stack: Stack) -> str:
    """The sandbox's own token is no secret; a real one stays where it is."""
    sandboxed = Part.SANDBOX in stack.config.started
    return stack.environment["WEBHOOK_TOKENS"] if sandboxed else "$WEBHOOK_TOKEN"


def curl_lines(at: Addresses, campaigns: Campaigns, token: str) -> list[str]:
    """Webhooks to paste, addressed to you: the first that is public, and the first that takes a token."""
    webhooks = [webhook for _, webhook in campaigns.webhooks]
    firsts = [next((w for w in webhooks if w.public is public), None) for public in (True, False)]
    return [_curl_line(at, webhook, token) for webhook in firsts if webhook]


def _curl_line(at: Addresses, webhook: Webhook, token: str) -> str:
    body = dict(next(iter(webhook.examples.values())))
    if "email" in body:
        body["email"] = YOU
    quoted = shlex.quote(json.dumps(body, ensure_ascii=False))
    shown = "" if webhook.public else f' -H "Authorization: Bearer {token}"'
    return f"curl -sS {at.web}/webhook/{webhook.path}{shown} -H 'Content-Type: application/json' -d {quoted}"
