"""What a run does, as data: the same seed and size give the same plan. Pure: nothing here touches the world."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from tidings.campaign import Campaigns
from tidings.chaos.faults import FAULTS, Fault

#: Share of webhooks that are posted several times at once, later again, or again as another event of the same business.
AT_ONCE, LATER, VARIED = 0.15, 0.10, 0.05
#: Share that carries an id of the sender's, and that starts nothing by rule.
WITH_ID, IGNORED = 0.3, 0.04
#: Signups whose first mail the website has sent.
SENT_ELSEWHERE = 0.03
#: The longest sequence is started in this part of the rounds only, so that the end is not waited for.
LONG_UNTIL = 0.6
BURSTS = 2
#: Share of a burst that is of another kind: events of one kind that come together share a handler run.
OTHER_KIND = 0.25
#: Templates that are changed in each round.
EDITS = 8


class Target(StrEnum):
    """What is killed."""

    WEB_WORKER = "a uvicorn worker"
    WEB = "the web server"
    WORKER = "a Prefect worker with its runs"
    WORKER_ALONE = "a Prefect worker, its runs go on"
    SEND = "a run in the middle of a send"
    SANDBOX = "the sandbox"
    PREFECT = "the Prefect server"
    POSTGRES = "PostgreSQL"


@dataclass(frozen=True)
class Webhook:
    """One event as its sender knows it, and the mails that have to come of it."""

    number: int
    path: str
    email: str
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Empty for what starts nothing, and for a further event of a business that another webhook has started.
    templates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Posting:
    """A webhook is posted this long after its round has begun."""

    at: float
    webhook: Webhook


@dataclass(frozen=True)
class Kill:
    """SIGKILL at this time; the supervisor waits `pause` seconds before it starts the process again."""

    at: float
    target: Target
    pause: float


@dataclass(frozen=True)
class Injection:
    """Faults at a provider for a while."""

    at: float
    seconds: float
    fault: Fault


@dataclass(frozen=True)
class Round:
    number: int
    seconds: float
    postings: tuple[Posting, ...]
    kills: tuple[Kill, ...]
    injections: tuple[Injection, ...]
    #: Templates whose copy a marketer changes while mails go out.
    edits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it."""

    rounds: int
    webhooks: int
    seconds: float
    testing_minute: float
    injections: int = 3
    #: For so long nothing may move at the end although something is left to do.
    patience: float = 150.0


FULL = Size(rounds=20, webhooks=2000, seconds=15.0, testing_minute=40.0)
QUICK = Size(rounds=3, webhooks=150, seconds=8.0, testing_minute=4.0)


@dataclass(frozen=True)
class Scenario:
    seed: int
    size: Size
    rounds: tuple[Round, ...]

    @property
    def webhooks(self) -> list[Webhook]:
        """Every distinct event, once."""
        return list({p.webhook.number: p.webhook for r in self.rounds for p in r.postings}.values())

    @property
    def postings(self) -> int:
        return sum(len(r.postings) for r in self.rounds)


def make(seed: int, size: Size, campaigns: Campaigns, now: datetime) -> Scenario:
    """The plan of a run. `now` is only written into bodies."""
    dice = random.Random(seed)  # noqa: S311
    events = _events(dice, size, campaigns, now)
    posted = _postings(dice, size, events)
    targets = _shuffled_for_ever(dice, list(Target))
    faults = _shuffled_for_ever(dice, list(FAULTS))
    templates = campaigns.templates
    rounds = tuple(
        Round(
            number=n + 1,
            seconds=size.seconds,
            postings=tuple(sorted(posted[n], key=lambda p: p.at)),
            kills=(Kill(dice.uniform(0.1, 0.5) * size.seconds, next(targets), dice.uniform(0.0, 3.0)),),
            injections=tuple(
                Injection(dice.uniform(0.0, 0.4) * size.seconds, 0.5 * size.seconds, next(faults))
                for _ in range(size.injections)
            ),
            edits=tuple(dice.sample(templates, k=min(EDITS, len(templates)))),
        )
        for n in range(size.rounds)
    )
    return Scenario(seed, size, rounds)


def _shuffled_for_ever(dice: random.Random, values: list[Any]) -> Iterator[Any]:
    """Each once before any comes again."""
    while True:
        dice.shuffle(values)
        yield from list(values)


# -- the webhooks ------------------------------------------------------------------------------------------------


def _events(dice: random.Random, size: Size, campaigns: Campaigns, now: datetime) -> list[tuple[int, Webhook]]:
    """(round, event) pairs; a varied repeat comes in the round of its original or later."""
    made: list[tuple[int, Webhook]] = []
    bodies = Bodies(dice, campaigns, now)
    while len(made) < size.webhooks:
        number = len(made)
        at = number * size.rounds // size.webhooks
        long = at < size.rounds * LONG_UNTIL
        burst = number * size.rounds * BURSTS // size.webhooks
        webhook, body = bodies.webhook(number, burst, long=long)
        made.append((at, webhook))
        if webhook.templates and dice.random() < VARIED and len(made) < size.webhooks:
            made.append((min(size.rounds - 1, at + dice.choice([0, 1])), bodies.varied(len(made), webhook, body)))
    return made


class Bodies:
    """Bodies of all five kinds, in the form that the website and the CRM send."""

    def __init__(self, dice: random.Random, campaigns: Campaigns, now: datetime) -> None:
        self._dice = dice
        self._now = now
        self._templates = {w.path: c.sequence(w.sequence).templates for c, w in campaigns.webhooks}

    def webhook(self, number: int, burst: int, *, long: bool) -> tuple[Webhook, dict[str, Any]]:
        """A new event."""
        kinds = [path for path in self._templates if long or path != "christmas-signup"]
        path = kinds[(burst + (self._dice.random() < OTHER_KIND)) % len(kinds)]
        email = f"delivered+chaos{number}@resend.dev"
        body = self._body(number, path, email)
        templates = self._templates[path]
        if self._dice.random() < IGNORED and path in ("christmas-signup", "onboarding-start"):
            body["consent" if path == "christmas-signup" else "payment_confirmed"] = False
            templates = ()
        elif path == "christmas-signup" and self._dice.random() < SENT_ELSEWHERE:
            body["email_1_sent_at"] = self._now.isoformat()
            templates = templates[1:]
        return self._made(number, path, email, body, templates), body

    def varied(self, number: int, original: Webhook, body: dict[str, Any]) -> Webhook:
        """The same business in another event: nothing more may come of it."""
        changed = json.loads(json.dumps(body))
        if "payload" in changed:
            changed["createdAt"] = (self._now + timedelta(minutes=number)).isoformat()
        else:
            changed["remark"] = changed["challenge" if "challenge" in changed else "business_name"] = f"again {number}"
        return self._made(number, original.path, original.email, changed, ())

    def _made(self, number: int, path: str, email: str, body: dict[str, Any], templates: tuple[str, ...]) -> Webhook:
        headers = {"webhook-id": f"chaos-{number}"} if self._dice.random() < WITH_ID else {}
        return Webhook(number, path, email, json.dumps(body, ensure_ascii=False), headers, templates)

    def _body(self, number: int, path: str, email: str) -> dict[str, Any]:
        person = {"email": email, "first_name": f"Nø {number}", "business_name": f"Firm & Co \\{number}"}
        tomorrow = (self._now + timedelta(days=1)).astimezone(UTC).isoformat()
        match path:
            case "christmas-signup":
                red = self._dice.randrange(4)
                assessment = {
                    "assessment_score": self._dice.randrange(101), "red_systems": red, "orange_systems": 2,
                    "yellow_systems": 4 - red, "green_systems": 2, "gps_score": 33, "money_score": 67,
                    "weakest_system_1": "GPS", "weakest_system_2": "AUTOPILOT", "strongest_system": "CABIN",
                }  # fmt: skip
                return {**person, "revenue": "10k-25k", "challenge": f"Challenge {number}", "consent": True,
                        "assessment_data": assessment}  # fmt: skip
            case "calendly-noshow":
                return {**person, "calendly_event_uri": f"https://api.calendly.com/scheduled_events/{number}",
                        "scheduled_time": tomorrow, "event_type": "Diagnostic call",
                        "reschedule_url": f"https://calendly.com/reschedulings/{number}"}  # fmt: skip
            case "postcall-maybe":
                return {**person, "call_date": "2026-12-01", "call_outcome": "Maybe", "call_notes": f"note {number}",
                        "objections": ["timing"], "follow_up_priority": "medium"}  # fmt: skip
            case "onboarding-start":
                return {**person, "payment_confirmed": True, "payment_amount": 2000, "payment_date": "2026-12-01",
                        "docusign_completed": True, "salon_address": "1 Example Street",
                        "observation_dates": ["2027-01-12", "2027-01-13"], "start_date": "2027-01-11",
                        "package_type": "Phase 1"}  # fmt: skip
            case "calcom-booking":
                attendee = {"email": email, "name": f"Jo {number}", "timeZone": "America/Toronto"}
                booking = {"type": "consult", "title": "Diagnostic call", "startTime": tomorrow,
                           "attendees": [attendee], "uid": f"chaos{number}", "metadata": {}}  # fmt: skip
                return {"triggerEvent": "BOOKING_CREATED", "createdAt": self._now.isoformat(), "payload": booking}
        raise ValueError(f"no body is known for the webhook {path!r}: add it in tidings/chaos/scenario.py")


# -- when they are posted ----------------------------------------------------------------------------------------


def _postings(dice: random.Random, size: Size, events: list[tuple[int, Webhook]]) -> list[list[Posting]]:
    """In bursts, out of order, some several times at once, some again in a later round."""
    posted: list[list[Posting]] = [[] for _ in range(size.rounds)]
    for index, (at, webhook) in enumerate(events):
        burst = index * BURSTS * size.rounds // len(events) % BURSTS
        moment = (burst + dice.uniform(0.0, 0.15)) * size.seconds / BURSTS
        times = 1 + (dice.choice([1, 1, 2]) if dice.random() < AT_ONCE else 0)
        posted[at] += [Posting(moment, webhook)] * times
        if dice.random() < LATER:
            later = dice.randrange(at, size.rounds)
            again = dice.uniform(0.5, 1.0) * size.seconds
            posted[later].append(Posting(max(again, moment), webhook))
    return posted
