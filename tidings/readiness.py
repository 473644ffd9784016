"""Which checks there are: those of `/health/ready`, and the further ones of `tidings doctor`."""

from __future__ import annotations

from tidings.doctor import engine, providers, public, senders, store, telling
from tidings.doctor.check import Check
from tidings.model import Scheme
from tidings.ports import Subscriptions
from tidings.wiring import App

#: Seconds that a word is good for: of our own parts, of what costs a request elsewhere, of what seldom changes.
NEAR, FAR, SELDOM = 5.0, 60.0, 240.0
#: What every server asks again and again.
CHECKS = (
    Check("ledger", store.ledger, NEAR),
    Check("clock", store.clock, FAR),
    Check("prefect", engine.prefect, NEAR),
    Check("deployments", engine.deployments, NEAR),
    Check("worker", engine.worker, NEAR),
    Check("notion", providers.notion, FAR),
    Check("templates", providers.templates, FAR),
    Check("resend", providers.resend, FAR),
    Check("resend-webhook", providers.resend_webhook, SELDOM),
    Check("alerts", telling.alerts, NEAR),
)


def _services(parts: App) -> dict[Scheme, Subscriptions]:
    """The services that tell which subscriptions they have, where their token is set."""
    return {Scheme.CALENDLY: parts.calendly} if parts.calendly else {}


#: What is slower, or cannot be seen from within the server: a machine need not reach its own public address.
FURTHER = (
    Check("clock", store.clocks, FAR),
    Check("public-url", public.public, FAR),
    Check("cors", public.cors, FAR),
    Check("secrets", senders.secrets, FAR),
    Check("subscriptions", senders.subscriptions(_services), SELDOM),
    Check("prefect-closed", engine.exposed, FAR),
)


def all_checks() -> list[Check]:
    """Every check once; of two with one name the further one."""
    return list({check.name: check for check in (*CHECKS, *FURTHER)}.values())
