"""The public form: anybody may post it, so each is looked at for what only a bot does, and counted by its sender.

What is believed to be a bot's is very specific, because a person who is taken for one learns nothing of it: a field
that no person sees was filled in, or the form came sooner than anybody can fill it in. All else that stops a form is
told, so that a person can try again. docs/decisions/0012 has the reasons.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tidings.campaign import blank_is_unknown
from tidings.model import Over, Quota

#: A person's connection has one IPv4 address, but a whole network of this size in IPv6.
IPV6_NETWORK = 64


class Signals(BaseModel):
    """What a website may send beside its visitor's answers."""

    model_config = ConfigDict(extra="ignore")

    form_trap: Any = Field(None, description="A field that visitors do not see: empty, unless a bot filled it in")
    form_seconds: Annotated[
        Annotated[float, Field(ge=0, allow_inf_nan=False)] | None, BeforeValidator(blank_is_unknown)
    ] = Field(None, description="Seconds from when the form was shown to when it was sent")
    turnstile: Annotated[Annotated[str, Field(max_length=4096)] | None, BeforeValidator(blank_is_unknown)] = Field(
        None, alias="cf-turnstile-response", description="What Turnstile's widget put into the form"
    )
    hcaptcha: Annotated[Annotated[str, Field(max_length=16384)] | None, BeforeValidator(blank_is_unknown)] = Field(
        None, alias="h-captcha-response", description="What hCaptcha's widget put into the form"
    )

    @property
    def missing(self) -> list[str]:
        """The fields that every form with the snippet of README.md has, and this one has not."""
        absent = [name for name in ("form_trap", "form_seconds") if name not in self.model_fields_set]
        return [*absent, *(["form_seconds"] if self.form_seconds is None and "form_seconds" not in absent else [])]

    @property
    def trapped(self) -> bool:
        given = blank_is_unknown(self.form_trap)
        return given is not None and given is not False


def suspicion(signals: Signals, min_seconds: float) -> tuple[str, str] | None:
    """Why this is a bot's: for the tally in few words, and for the event in full. None when nothing says so."""
    if signals.trapped:
        return "hidden field filled in", "taken for a bot's: the hidden field form_trap was filled in"
    seconds = signals.form_seconds
    if seconds is not None and seconds < min_seconds:
        return (
            "sent too soon",
            f"taken for a bot's: sent {seconds:g} s after the form was shown (FORM_MIN_SECONDS is {min_seconds:g})",
        )
    return None


def client_of(forwarded: list[str], peer: str | None, proxies: int) -> str | None:
    """Who posts: an IPv4 address or an IPv6 network, as text. None when that is not known.

    `forwarded` are the entries of X-Forwarded-For in order. Each of our own proxies adds the address that it saw at
    the end, so the one that the outermost saw is believed, and nothing before it. An address that is not of the public
    internet (a proxy on the same network that nobody told us of) is not a visitor's, and so is not known.
    """
    given = forwarded[-proxies] if 0 < proxies <= len(forwarded) else peer
    return _network(given or "")


@lru_cache(maxsize=4096)
def _network(given: str) -> str | None:
    try:
        address = ip_address(_bare(given))
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    if not address.is_global:
        return None
    if isinstance(address, IPv6Address):
        shift = 128 - IPV6_NETWORK
        return f"{IPv6Address(int(address) >> shift << shift)}/{IPV6_NETWORK}"
    return str(address)


def _bare(given: str) -> str:
    """The address without a port, which some proxies add."""
    if given.startswith("["):
        return given[1:].partition("]")[0]
    return given.partition(":")[0] if given.count(":") == 1 else given


def quota(kind: str, value: str, limit: int, secret: str) -> Quota:
    """A limit for one address. It is counted under a keyed digest, so that the count tells of nobody."""
    digest = hashlib.blake2b(f"{kind}\0{value}".encode(), key=secret.encode()[:64], digest_size=8).digest()
    return Quota(kind, int.from_bytes(digest, signed=True), limit)


def seconds_left(over: Over, now: datetime) -> int:
    """Whole seconds until a sender may try again; at least one."""
    return max(1, ceil((over.until - now) / timedelta(seconds=1)))
