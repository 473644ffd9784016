"""What allows mails to a contact, and for how long. Pure."""

from __future__ import annotations

from datetime import datetime

from dateutil.relativedelta import relativedelta

from tidings.model import Basis, Consent

#: How long implied consent holds: Canada's anti-spam law, section 10 (10) and (13).
HOLDS = {Basis.PURCHASE: relativedelta(years=2), Basis.INQUIRY: relativedelta(months=6)}


def evidence(basis: Basis, *, source: str, at: datetime, wording: str | None, address: str) -> Consent:
    """The evidence of a consent, with the moment that it runs out: counted in calendar months and years."""
    holds = HOLDS.get(basis)
    return Consent(basis, source, at, wording, address, at + holds if holds else None)
