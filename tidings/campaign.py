"""What a campaign is: data that routes, deployments, template checks and the demo all follow from.

A campaign is a folder with a `campaign.py` that defines `CAMPAIGN = Campaign(...)`, and a folder `copy/`
with one starter mail per template. Nothing outside that folder knows its names.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tidings.errors import CampaignError
from tidings.model import Basis, Booking, ContactFacts, Fact, Milestone, Scheme, Turn

SLUG = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*$")


@dataclass(frozen=True)
class Known:
    """What the ledger, or the calendar itself, knows beside a body."""

    booking: Booking | None = None
    milestones: tuple[Milestone, ...] = ()


class NotYet(Exception):
    """A body starts nothing by itself now, for this reason; it may have done its part."""


def blank_is_unknown(value: Any) -> Any:
    """Forms send "" for a field that was left empty; that is "not known", not a value."""
    return None if isinstance(value, str) and not value.strip() else value


class Payload(BaseModel, ABC):
    """A webhook's body. A campaign's payload models derive from this and answer five questions about it."""

    #: Unknown fields are kept in the stored event and do no harm: senders add fields without asking.
    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    @abstractmethod
    def contact(self) -> ContactFacts | None:
        """Whom it is about, or None when it says nothing of a person."""

    @abstractmethod
    def enrolment_key(self) -> str:
        """What makes this enrolment the same as another: a contact, a booking, a payment."""

    def former_key(self) -> str | None:
        """The key that an earlier version of this model gave the same enrolment: one that has it is this one."""
        return None

    def says_which(self) -> bool:
        """Whether its key says which call, booking or payment it is about. Where it does not, a further one is taken
        for the same while the sequence of the last runs, and for another after its end."""
        return True

    #: Two bodies without a sender's id are the same event when all is equal that the sender said, also what is not
    #: understood here; else when all is equal that is.
    whole: ClassVar[bool] = False

    def event_key(self) -> str | None:
        """The sender's own id of this event; None when it has none and equal bodies are the same event."""
        return None

    def ignored_because(self) -> str | None:
        """Why this starts nothing, or None when it does."""
        return None

    def facts(self) -> tuple[Fact, ...]:
        """What it says of bookings, payments and signatures, also where it starts nothing."""
        return ()

    @classmethod
    def recognises(cls, body: Any) -> bool:
        """Whether this JSON is a body of this kind, right or wrong; asked of a service's own bodies only."""
        return False

    def parts(self) -> tuple[Payload, ...]:
        """One a person that it is about; each of them is an event."""
        return (self,)

    def starts_sequence(self) -> str | None:
        """The sequence that it starts, where that is not its webhook's."""
        return None

    def booking(self) -> str | None:
        """The booking that the sequence is about, by its fact's key: it ends and moves with that."""
        return None

    def follows(self) -> str | None:
        """The booking whose place this one has taken: the mails about that one move over to this."""
        return None

    def looks_up(self) -> str | None:
        """A booking that must be looked up, because this body says too little of it."""
        return None

    def counts_milestones(self) -> bool:
        """Whether what it starts takes payments and signatures together, and uses them up."""
        return False

    def joined(self, known: Known) -> Payload:
        """This body with what else is known of its booking and contact. Raises NotYet while something is lacking."""
        return self

    def anchor(self, received_at: datetime) -> datetime:
        """The moment that the sequence's gaps count from."""
        return received_at

    def variables(self, settings: Mapping[str, Any], now: datetime) -> dict[str, Any]:
        """Template variables that this body makes known. Unknown ones are left out, never invented."""
        return {}

    def segment(self) -> str | None:
        """The contact's segment, when the body says enough to know it."""
        return None

    def basis(self) -> Basis:
        """What allows mails to the contact. Without a word of the model's it is the weakest, which runs out first."""
        return Basis.INQUIRY

    def consented_at(self, received_at: datetime) -> datetime:
        """When the contact has agreed, bought or asked; implied consent counts from then."""
        return received_at

    def consent_wording(self) -> str | None:
        """What the contact was told when it agreed, where the sender says so."""
        return None

    def sent_elsewhere(self) -> Mapping[int, datetime]:
        """Positions that someone else has sent already, and when."""
        return {}


@dataclass(frozen=True)
class Step:
    """One mail of a sequence: its template in Notion, and its gap to the anchor (negative: before it)."""

    template: str
    after: timedelta


@dataclass(frozen=True)
class Exit:
    """Who takes this turn leaves the sequence that lists it, for the reason `because`."""

    on: Turn
    because: str
    #: Also who had taken it before entering: such as a buyer, who stays one.
    ever: bool = False


#: A sequence that may be entered again as soon as it has ended.
ALWAYS = timedelta(0)


@dataclass(frozen=True)
class Sequence:
    """Mails in order.

    `priority` decides between sequences of one contact that run at the same time: what is due of a lower one is not
    sent. `exits` end it for good. `again_after` is how long after its end it may be entered again under the same key
    (ALWAYS: at once, None: never). With `confirmation`, a template, the first mail asks the contact to confirm
    (double opt-in), and nothing else is sent before the click.
    """

    name: str
    title: str
    steps: tuple[Step, ...]
    priority: int = 0
    exits: tuple[Exit, ...] = ()
    again_after: timedelta | None = None
    confirmation: str | None = None

    @cached_property
    def templates(self) -> tuple[str, ...]:
        asking = (self.confirmation,) if self.confirmation else ()
        return (*asking, *(step.template for step in self.steps))


@dataclass(frozen=True)
class Native:
    """A service's own body, signed the service's own way."""

    scheme: Scheme
    payload: type[Payload]
    examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: What a subscription at the service has to tell of, by the service's own names.
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Webhook:
    """A route `/webhook/<path>`, the deployment that handles it, and the sequence that it starts."""

    path: str
    deployment: str
    noun: str
    sequence: str
    payload: type[Payload]
    examples: Mapping[str, Mapping[str, Any]]
    summary: str
    #: Posted by a browser, which can keep no secret. All others show who they are, one of `schemes`.
    public: bool = False
    #: Services that post bodies of their own here, beside `payload`.
    natives: tuple[Native, ...] = ()

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """How a sender may show who it is. A token or a Standard Webhook vouches for any body."""
        own = dict.fromkeys(native.scheme for native in self.natives)
        return (Scheme.BEARER, Scheme.STANDARD, *own)

    def model_of(self, body: Any, scheme: Scheme | None = None) -> type[Payload]:
        """Whose body this JSON is: of the service that signed it, else of the one that it looks like."""
        for native in self.natives:
            if scheme is native.scheme or (scheme not in self._natively and native.payload.recognises(body)):
                return native.payload
        return self.payload

    @property
    def _natively(self) -> set[Scheme]:
        return {native.scheme for native in self.natives}

    def read(self, body: str) -> Payload:
        """A stored body, understood. Raises ValueError: pydantic's ValidationError is one, as bad JSON's error is."""
        return self.model_of(json.loads(body)).model_validate_json(body)

    def read_part(self, body: str, email: str | None) -> Payload:
        """The part of a stored body that is about this contact."""
        parts = self.read(body).parts()
        theirs = (part for part in parts if (contact := part.contact()) and contact.email == email)
        return next(theirs, parts[0])


@dataclass(frozen=True)
class Campaign:
    """A campaign, checked when it is made: names that do not fit together are refused here."""

    name: str
    title: str
    sequences: tuple[Sequence, ...]
    webhooks: tuple[Webhook, ...]
    #: Contexts that `tidings templates check` renders every template with, one for each kind of contact.
    samples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folder: Path = Path()
    #: Segments whose new contacts the team is told of at once (alerts of the kind hot-lead).
    hot_segments: frozenset[str] = frozenset()
    #: Tidings' own, for no people: counted in no figure, shown in no documentation, and let in by our own signature
    #: only.
    internal: bool = False

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise CampaignError(f"Campaign {self.name!r}: " + "; ".join(problems))

    def _problems(self) -> Iterator[str]:
        names = [s.name for s in self.sequences]
        templates = [t for s in self.sequences for t in s.templates]
        paths = [w.path for w in self.webhooks]
        for value in (self.name, *names, *paths, *(w.deployment for w in self.webhooks)):
            if not SLUG.match(value):
                yield f"{value!r} is not a name: use lower-case letters, digits and single hyphens"
        for what, values in (("sequence", names), ("template", templates), ("webhook path", paths)):
            for value in sorted({v for v in values if values.count(v) > 1}):
                yield f"the {what} {value!r} is named twice"
        for webhook in self.webhooks:
            if webhook.sequence not in names:
                yield f"webhook {webhook.path!r} starts {webhook.sequence!r}, which is none of {names}"
        for sequence in self.sequences:
            if not sequence.steps:
                yield f"sequence {sequence.name!r} has no steps"
            if sequence.again_after is not None and sequence.again_after < ALWAYS:
                yield f"sequence {sequence.name!r} may be entered again before it has ended: again_after is negative"
            if sequence.confirmation and any(step.after < timedelta(0) for step in sequence.steps):
                yield f"sequence {sequence.name!r} asks for a click, so none of its mails can be due before its anchor"

    @property
    def send_deployment(self) -> str:
        return f"{self.name}-send-email"

    @property
    def templates(self) -> tuple[str, ...]:
        return tuple(t for s in self.sequences for t in s.templates)

    def sequence(self, name: str) -> Sequence:
        return next(s for s in self.sequences if s.name == name)

    def sequence_of_template(self, template: str) -> Sequence:
        return next(s for s in self.sequences if template in s.templates)

    def starting(self, sequence: str) -> Webhook:
        """The webhook whose deployment handles what starts this sequence."""
        for webhook in self.webhooks:
            if webhook.sequence == sequence:
                return webhook
        raise CampaignError(f"Campaign {self.name!r} has no webhook that starts {sequence!r}")

    def started_by(self, webhook: Webhook, payload: Payload) -> Sequence:
        """The sequence that a body on this webhook starts."""
        return self.sequence(payload.starts_sequence() or webhook.sequence)

    def webhook(self, path: str) -> Webhook:
        return next(w for w in self.webhooks if w.path == path)

    def starter(self, template: str) -> tuple[str, str]:
        """The starter copy of a template: its subject and its HTML body."""
        path = self.folder / "copy" / f"{template}.html"
        if not path.is_file():
            raise CampaignError(f"Campaign {self.name!r} has no starter copy {path}")
        head, _, body = path.read_text(encoding="utf-8").partition("\n\n")
        if not head.startswith("Subject: ") or not body.strip():
            raise CampaignError(f"{path}: the first line must be 'Subject: …', then an empty line, then HTML")
        return head.removeprefix("Subject: ").strip(), body.strip()


class Campaigns(Mapping[str, Campaign]):
    """All campaigns by name, with look-ups across them."""

    NO_PATHS: ClassVar[str] = "no campaign was found in {folders}: a campaign is a folder with a campaign.py"

    def __init__(self, campaigns: list[Campaign]) -> None:
        self._by_name = {c.name: c for c in campaigns}
        for what, values in (
            ("campaign name", [c.name for c in campaigns]),
            ("webhook path", [w.path for c in campaigns for w in c.webhooks]),
            ("deployment", [w.deployment for c in campaigns for w in c.webhooks]),
            ("template", [t for c in campaigns for t in c.templates]),
        ):
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise CampaignError(f"Two campaigns use the same {what}: {', '.join(twice)}")

    def __getitem__(self, name: str) -> Campaign:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def for_people(self) -> Campaigns:
        """Without those that are Tidings' own."""
        return Campaigns([c for c in self.values() if not c.internal])

    @property
    def internal(self) -> list[str]:
        """The names of those that are Tidings' own."""
        return [c.name for c in self.values() if c.internal]

    @property
    def webhooks(self) -> list[tuple[Campaign, Webhook]]:
        return [(c, w) for c in self.values() for w in c.webhooks]

    @property
    def templates(self) -> list[str]:
        return [t for c in self.values() for t in c.templates]

    def of_template(self, template: str) -> Campaign:
        for campaign in self.values():
            if template in campaign.templates:
                return campaign
        raise CampaignError(f"No campaign has a template {template!r}; it has {', '.join(self.templates)}")


def load_campaigns(folders: list[Path]) -> Campaigns:
    """Every campaign in these folders (a folder of campaigns, or one campaign's own folder)."""
    found: list[Campaign] = []
    for folder in folders:
        files = [folder / "campaign.py"] if (folder / "campaign.py").is_file() else sorted(folder.glob("*/campaign.py"))
        found += [_load(path) for path in files]
    if not found:
        raise CampaignError(Campaigns.NO_PATHS.format(folders=", ".join(str(f) for f in folders)))
    return Campaigns(sorted(found, key=lambda campaign: campaign.internal))  # people come first


def _load(path: Path) -> Campaign:
    module = _import(path)
    campaign = getattr(module, "CAMPAIGN", None)
    if not isinstance(campaign, Campaign):
        raise CampaignError(f"{path} does not define CAMPAIGN = Campaign(...)")
    object.__setattr__(campaign, "folder", path.parent)
    return campaign


def _import(path: Path) -> ModuleType:
    """Import a campaign's package under a name of its own, so that its files can import each other."""
    # By the whole path: two folders of one name are two campaigns, each with files of its own.
    name = "tidings_campaign_" + hashlib.sha256(str(path.parent.resolve()).encode()).hexdigest()[:16]
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(path.parent)]
        sys.modules[name] = package
    full = f"{name}.campaign"
    if full in sys.modules and getattr(sys.modules[full], "__file__", None) == str(path):
        return sys.modules[full]
    spec = importlib.util.spec_from_file_location(full, path)
    if spec is None or spec.loader is None:
        raise CampaignError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    spec.loader.exec_module(module)
    return module


def explain(error: ValidationError) -> list[dict[str, Any]]:
    """A validation error as field, what is wrong, and what is accepted; without the sender's own values."""
    return [
        {
            "loc": ["body", *item["loc"]],
            "field": ".".join(str(p) for p in item["loc"]),
            "msg": item["msg"],
            "type": item["type"],
        }
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]
