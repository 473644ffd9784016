"""What Stripe and DocuSign say of a purchase, in their own bodies (apis.md 3.3 and 3.4).

The onboarding mails start when there are a payment and a signature, in whichever order these come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr, StringConstraints, model_validator

from tidings.campaign import Known, NotYet, Payload
from tidings.model import Basis, ContactFacts, Fact, Milestone, MilestoneFact, MilestoneKind

from .calls import Detail, Kind
from .payloads import (
    HAVE_STARTED,
    TOGETHER,
    WAITS_FOR_PAYMENT,
    WAITS_FOR_SIGNATURE,
    Aware,
    MaybeEmail,
    Moment,
    Name,
    first_word,
    spoken_date,
)

#: Currencies whose smallest unit is not a hundredth (Stripe's documentation, Nov 2026).
WHOLE = frozenset(
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf"]
)
THOUSANDTHS = frozenset(["bhd", "jod", "kwd", "omr", "tnd"])

Id = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Purchase(Payload):
    """A payment or a signature; with the other one, a new customer."""

    whole: ClassVar[bool] = True
    _paid: Milestone | None = PrivateAttr(None)
    _signed: Milestone | None = PrivateAttr(None)

    def buyer(self) -> str | None:
        """The address of who has paid or signed."""
        raise NotImplementedError

    def enrolment_key(self) -> str:
        """As the flat body's: the contact and the payment's date."""
        return f"{self.buyer()}|{self._paid.at.date().isoformat() if self._paid else ''}"

    def counts_milestones(self) -> bool:
        return True

    def basis(self) -> Basis:
        return Basis.PURCHASE

    def consented_at(self, received_at: datetime) -> datetime:
        """Two years count from the payment."""
        return min(self._paid.at, received_at) if self._paid else received_at

    def joined(self, known: Known) -> Payload:
        told = self.model_copy()
        told._paid, told._signed = _pair(known.milestones)
        return told

    def variables(self, settings: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for milestone in (self._signed, self._paid):
            told |= dict(milestone.details) if milestone else {}
        return {**settings, **told}


def _pair(milestones: Iterable[Milestone]) -> tuple[Milestone, Milestone]:
    """The latest payment and signature that have had no effect yet. Raises NotYet while one is lacking."""
    listed = list(milestones)
    latest = {m.kind: m for m in listed if m.used_at is None}
    paid, signed = latest.get(MilestoneKind.PAID), latest.get(MilestoneKind.SIGNED)
    newest = max((m.at for m in latest.values()), default=None)
    if newest is None or any(m.used_at is not None and newest - m.at <= TOGETHER for m in listed):
        raise NotYet(HAVE_STARTED)
    if paid is None:
        raise NotYet(WAITS_FOR_PAYMENT)
    if signed is None:
        raise NotYet(WAITS_FOR_SIGNATURE)
    if abs(paid.at - signed.at) > TOGETHER:
        raise NotYet(WAITS_FOR_PAYMENT if paid.at < signed.at else WAITS_FOR_SIGNATURE)
    return paid, signed


class StripeCustomer(Detail):
    """Whom a Stripe checkout names."""

    email: MaybeEmail = None
    name: Name = None


class StripeSession(Detail):
    """Stripe's checkout session."""

    id: Id | None = None
    payment_status: Name = None
    amount_total: Annotated[int, Field(ge=0, le=10**12)] | None = None
    currency: Name = None
    customer_email: MaybeEmail = None
    customer_details: StripeCustomer | None = None


class StripeData(Detail):
    """What a Stripe event is about."""

    object: StripeSession = Field(default_factory=StripeSession)


CHECKOUTS = ("checkout.session.completed", "checkout.session.async_payment_succeeded")


class StripeEvent(Purchase):
    """Stripe's own body. A checkout whose payment takes days is completed first and paid by a later event."""

    id: Id = Field(description="evt_…")
    type: Kind = Field(description="Stripe's type, such as checkout.session.completed")
    created: Annotated[int, Field(ge=0, le=10**11, description="seconds since 1970")]
    data: StripeData = Field(default_factory=StripeData)

    @model_validator(mode="before")
    @classmethod
    def _read_what_is_known(cls, data: Any) -> Any:
        known = isinstance(data, dict) and data.get("type") in CHECKOUTS
        return data if known or not isinstance(data, dict) else {**data, "data": {}}

    @model_validator(mode="after")
    def _complete(self) -> StripeEvent:
        if self.type in CHECKOUTS and not self.session.id:
            raise ValueError(f"{self.type} needs data.object.id")
        return self

    @classmethod
    def recognises(cls, body: Any) -> bool:
        return isinstance(body, dict) and body.get("object") == "event"

    @property
    def session(self) -> StripeSession:
        return self.data.object

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.created, UTC)

    def buyer(self) -> str | None:
        details = self.session.customer_details
        return (details.email if details else None) or self.session.customer_email

    def contact(self) -> ContactFacts | None:
        email = self.buyer()
        return ContactFacts(email=email, first_name=self._first_name, attributes=self._phase) if email else None

    @property
    def _first_name(self) -> str | None:
        return first_word(self.session.customer_details.name) if self.session.customer_details else None

    @property
    def _phase(self) -> dict[str, Any]:
        return {"phase": "Onboarding"} if self.paid else {}

    @property
    def paid(self) -> bool:
        return self.type in CHECKOUTS and self.session.payment_status == "paid"

    def event_key(self) -> str | None:
        return self.id

    def ignored_because(self) -> str | None:
        if self.type not in CHECKOUTS:
            return f"{self.type} starts no sequence"
        if not self.paid:
            return f"the payment is not confirmed (payment_status {self.session.payment_status})"
        return None if self.buyer() else "the checkout names no address"

    def facts(self) -> tuple[Fact, ...]:
        if not self.paid or not self.buyer():
            return ()
        details = {
            "first_name": self._first_name,
            "payment_amount": amount(self.session.amount_total, self.session.currency),
            "payment_date": spoken_date(self.at),
        }
        known = {name: value for name, value in details.items() if value is not None}
        return (MilestoneFact(MilestoneKind.PAID, f"stripe:{self.session.id}", self.at, known),)


def amount(smallest: int | None, currency: str | None) -> str | None:
    """Stripe's whole number of the currency's smallest unit as people write it; None where either is not known."""
    if smallest is None or not currency:
        return None
    places = 0 if currency.lower() in WHOLE else 3 if currency.lower() in THOUSANDTHS else 2
    return f"{Decimal(smallest).scaleb(-places):,.{places}f}"


class Signer(Detail):
    """One who signs."""

    email: MaybeEmail = None
    name: Name = None


class DocusignSender(Detail):
    """Who sent the envelope."""

    email: Name = None


class DocusignRecipients(Detail):
    """Who gets the envelope."""

    signers: list[Signer] = Field(default_factory=list, max_length=100)


class DocusignSummary(Detail):
    """What DocuSign says of an envelope when "include data" is on."""

    completedDateTime: Moment = None  # noqa: N815
    sender: DocusignSender = Field(default_factory=DocusignSender)
    recipients: DocusignRecipients = Field(default_factory=DocusignRecipients)


class DocusignData(Detail):
    """What a DocuSign event is about."""

    envelopeId: Id | None = None  # noqa: N815
    envelopeSummary: DocusignSummary = Field(default_factory=DocusignSummary)  # noqa: N815


COMPLETED = "envelope-completed"


class DocusignEvent(Purchase):
    """DocuSign Connect's own body. Everybody who signed, but for the sender, has signed the agreement."""

    event: Kind = Field(description="DocuSign's event, such as envelope-completed")
    generatedDateTime: Aware  # noqa: N815  (DocuSign's spelling)
    configurationId: int | Id | None = None  # noqa: N815
    data: DocusignData = Field(default_factory=DocusignData)

    @model_validator(mode="before")
    @classmethod
    def _read_what_is_known(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("event") == COMPLETED:
            return data
        about = data.get("data")
        return {**data, "data": {"envelopeId": about.get("envelopeId")} if isinstance(about, dict) else {}}

    @model_validator(mode="after")
    def _complete(self) -> DocusignEvent:
        if self.event == COMPLETED and not self.data.envelopeId:
            raise ValueError(f"{COMPLETED} needs data.envelopeId")
        return self

    @classmethod
    def recognises(cls, body: Any) -> bool:
        return isinstance(body, dict) and "generatedDateTime" in body

    def parts(self) -> tuple[Payload, ...]:
        signers = self._signers
        if len(signers) < 2:
            return (self,)
        summary = self.data.envelopeSummary
        return tuple(
            self.model_copy(
                update={
                    "data": self.data.model_copy(
                        update={
                            "envelopeSummary": summary.model_copy(
                                update={"recipients": DocusignRecipients(signers=[one])}
                            )
                        }
                    )
                }
            )
            for one in signers
        )

    @property
    def _signers(self) -> list[Signer]:
        summary = self.data.envelopeSummary
        ours = {None, (summary.sender.email or "").lower()}
        return list({one.email: one for one in summary.recipients.signers if one.email not in ours}.values())

    def buyer(self) -> str | None:
        return self._signers[0].email if self._signers else None

    def contact(self) -> ContactFacts | None:
        email = self.buyer()
        if self.event != COMPLETED or email is None:
            return None
        return ContactFacts(email=email, first_name=first_word(self._signers[0].name))

    def event_key(self) -> str | None:
        if not self.data.envelopeId:
            return None
        when = self.generatedDateTime.isoformat()
        return f"{self.configurationId}|{self.event}|{self.data.envelopeId}|{when}|{self.buyer() or ''}"

    def ignored_because(self) -> str | None:
        if self.event != COMPLETED:
            return f"{self.event} starts no sequence"
        return None if self._signers else 'the envelope names no signer; switch on "include data" in DocuSign Connect'

    def facts(self) -> tuple[Fact, ...]:
        if self.event != COMPLETED or not self._signers:
            return ()
        one = self._signers[0]
        at = self.data.envelopeSummary.completedDateTime or self.generatedDateTime
        name = first_word(one.name)
        key = f"docusign:{self.data.envelopeId}|{one.email}"
        return (MilestoneFact(MilestoneKind.SIGNED, key, at, {"first_name": name} if name else {}),)
