"""The Christmas campaign's own data: what each body means, and that its copy suits every kind of contact."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tidings.campaign import Payload, explain, load_campaigns
from tidings.errors import TemplateBroken
from tidings.model import Template
from tidings.notion_setup import sample_contexts
from tidings.render import render
from tidings.settings import ROOT

CAMPAIGNS = load_campaigns([Path(ROOT / "campaigns")])
CHRISTMAS = CAMPAIGNS["christmas"]
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FOOTER = {"sender": "BusOS", "postal_address": "1 Example Street", "unsubscribe_url": "https://t.test/unsubscribe/x"}
FACTS = {
    "calendly_link": "https://calendly.com/x",
    "portal_url": "https://p.test",
    "pdf_download_link": "https://d.test",
}
PATHS = [w.path for w in CHRISTMAS.webhooks]
EXAMPLES = [(w.path, name) for w in CHRISTMAS.webhooks for name in w.examples]
ONE = {"email": "ada@resend.dev"}
MINIMAL: dict[str, dict[str, Any]] = {
    "christmas-signup": {**ONE, "consent": True},
    "calendly-noshow": ONE,
    "postcall-maybe": ONE,
    "onboarding-start": {**ONE, "payment_confirmed": True},
}


AT = datetime(2026, 12, 1, 15, tzinfo=UTC)


def parse(path: str, **body: Any) -> Payload:
    return CHRISTMAS.webhook(path).payload.model_validate({**MINIMAL.get(path, {}), **body})


def booking(trigger: str = "BOOKING_CREATED", **payload: Any) -> Payload:
    details = {
        "uid": "u1",
        "startTime": "2026-12-01T17:00:00Z",
        "attendees": [{"email": "Ana@Resend.dev", "name": "Ana Roy", "timeZone": "America/Toronto"}],
    }
    body = {"triggerEvent": trigger, "createdAt": "2026-11-22T12:00:00Z", "payload": {**details, **payload}}
    return CHRISTMAS.webhook("calcom-booking").payload.model_validate(body)


def variables(payload: Payload) -> dict[str, Any]:
    """What is known of a contact."""
    return {k: v for k, v in payload.variables({}, NOW).items() if v is not None}


def refusals(path: str, **body: Any) -> list[str]:
    with pytest.raises(ValidationError) as told:
        parse(path, **body)
    return [item["field"] for item in explain(told.value)]


# -- bodies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "example"), EXAMPLES)
def test_every_example__is_a_valid_body_for_a_test_inbox(path: str, example: str) -> None:
    webhook = CHRISTMAS.webhook(path)

    payload = webhook.payload.model_validate(webhook.examples[example])
    contact = payload.contact()

    assert contact is not None
    assert contact.email.startswith("delivered+")
    assert payload.ignored_because() is None


def test_the_product__has_its_five_webhooks_and_deployments() -> None:
    assert {w.path: (w.deployment, len(CHRISTMAS.sequence(w.sequence).steps)) for w in CHRISTMAS.webhooks} == {
        "christmas-signup": ("christmas-signup-handler", 7),
        "calendly-noshow": ("christmas-noshow-recovery-handler", 3),
        "postcall-maybe": ("christmas-postcall-maybe-handler", 3),
        "onboarding-start": ("christmas-onboarding-handler", 3),
        "calcom-booking": ("christmas-precall-handler", 3),
    }
    assert CHRISTMAS.send_deployment == "christmas-send-email"


def test_an_address__is_lower_cased() -> None:
    contact = parse("christmas-signup", email="Ada@Resend.DEV").contact()

    assert contact is not None
    assert contact.email == "ada@resend.dev"


@pytest.mark.parametrize("path", MINIMAL)
@pytest.mark.parametrize("email", ["", "ada", "ada@", "a b@x.co", None, 5, "ada@x.co\nbcc:y@z.co", "a" * 250 + "@x.co"])
def test_a_wrong_address__is_refused_by_field(path: str, email: Any) -> None:
    assert refusals(path, email=email) == ["email"]


@pytest.mark.parametrize("path", MINIMAL)
@pytest.mark.parametrize("name", ["Ada\r\nBcc: x@y.z", "A\nB", "A\x00B", "A\x7fB", "x" * 201])
def test_f17_control_characters_in_names__are_refused_by_field(path: str, name: str) -> None:
    assert refusals(path, first_name=name) == ["first_name"]
    assert refusals(path, business_name=name) == ["business_name"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("christmas-signup", "email_1_sent_at"),
        ("calendly-noshow", "scheduled_time"),
        ("postcall-maybe", "call_date"),
        ("onboarding-start", "payment_date"),
    ],
)
def test_f9_a_naive_moment__is_refused_by_field(path: str, field: str) -> None:
    assert {name.partition(".")[0] for name in refusals(path, **{field: "2026-12-01T15:30:00"})} == {field}


def test_f9_a_naive_start_of_a_booking__is_refused_by_field() -> None:
    with pytest.raises(ValidationError) as told:
        booking(startTime="2026-12-01T15:30:00")

    assert [item["field"] for item in explain(told.value)] == ["payload.startTime"]


@pytest.mark.parametrize("given", ["2026-12-01T15:30:00Z", "2026-12-01T10:30:00-05:00"])
def test_f9_a_moment_with_an_offset__is_taken(given: str) -> None:
    moment = datetime(2026, 12, 1, 15, 30, tzinfo=UTC)

    assert parse("christmas-signup", email_1_sent_at=given).sent_elsewhere() == {1: moment}
    assert booking(startTime=given).anchor(NOW) == moment


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("red_systems", 9),
        ("red_systems", -1),
        ("orange_systems", 1.5),
        ("assessment_score", 101),
        ("assessment_score", "NaN"),
        ("gps_score", -1),
        ("revenue_leak_total", -5),
        ("revenue_leak_total", "a lot"),
    ],
)
@pytest.mark.parametrize("nested", [True, False])
def test_a_number_out_of_range__is_refused_by_field(field: str, value: Any, nested: bool) -> None:
    body = {"assessment_data": {field: value}} if nested else {field: value}

    assert refusals("christmas-signup", **body) == [f"assessment_data.{field}"]


def test_unknown_fields__do_no_harm() -> None:
    assert parse("christmas-signup", utm_source="x", nonsense={"a": [1]}).enrolment_key() == "ada@resend.dev"


@pytest.mark.parametrize("path", MINIMAL)
@pytest.mark.parametrize("blank", ["", "  ", None])
def test_f19_a_blank_field__is_unknown(path: str, blank: str | None) -> None:
    known = variables(parse(path, first_name=blank, business_name=blank))

    assert "first_name" not in known
    assert "business_name" not in known


# -- signup --------------------------------------------------------------------------------------------------


def test_f19_a_signup_with_nothing_but_an_address__makes_nothing_known() -> None:
    payload = parse("christmas-signup")

    assert variables(payload) == {}
    assert payload.segment() is None
    contact = payload.contact()
    assert contact is not None
    assert dict(contact.attributes) == {"phase": "Signup"}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"red_systems": 2}, "CRITICAL"),
        ({"red_systems": 1}, "URGENT"),
        ({"red_systems": 0, "orange_systems": 2}, "URGENT"),
        ({"red_systems": 0, "orange_systems": 0}, "OPTIMIZE"),
        ({}, None),
        ({"red_systems": 0}, None),
        ({"orange_systems": 0}, None),
        ({"orange_systems": 5}, None),
    ],
)
def test_f19_a_segment__is_known_only_when_the_counts_that_decide_it_are(
    counts: dict[str, int], expected: str | None
) -> None:
    payload = parse("christmas-signup", **counts)

    assert payload.segment() == expected
    assert variables(payload).get("segment") == expected


def test_assessment_data__comes_flat_or_nested_and_means_the_same() -> None:
    data = {"assessment_score": 52, "red_systems": 2, "orange_systems": 1, "weakest_system_1": "GPS", "gps_score": 33.5}

    flat = parse("christmas-signup", **data, business_name="Ada & Co")
    nested = parse("christmas-signup", assessment_data={**data, "business_name": "Ada & Co"})

    assert variables(flat) == variables(nested)
    assert variables(flat)["Score1"] == "33.5"
    assert variables(flat)["assessment_score"] == "52"
    assert variables(flat)["business_name"] == "Ada & Co"


def test_a_value_given_in_both_places__is_the_nested_one() -> None:
    payload = parse("christmas-signup", assessment_score=10, assessment_data={"assessment_score": 90})

    assert variables(payload)["overall_score"] == "90"


@pytest.mark.parametrize(
    ("body", "first"),
    [({"name": "Ada King"}, "Ada"), ({"name": "Ada King", "first_name": "A."}, "A."), ({"name": " "}, None)],
)
def test_the_first_name__is_the_one_given_or_the_first_word(body: dict[str, str], first: str | None) -> None:
    assert variables(parse("christmas-signup", **body)).get("first_name") == first


def test_money__is_shown_as_it_was_said_and_no_currency_is_assumed() -> None:
    known = variables(parse("christmas-signup", revenue_leak_total="2500", weakest_system_1="FUEL", money_score=12))

    assert known["TotalRevenueLeak"] == "2,500"
    assert known["TotalRevenueLeak_K"] == "2.5K"
    assert known["AnnualRevenueLeak"] == "30,000"
    assert known["Score1"] == "12"


def test_f19_tips__are_for_the_systems_that_the_contact_named() -> None:
    known = variables(parse("christmas-signup", weakest_system_1="GPS", weakest_system_2="Something else"))

    assert "three results" in known["personalized_tip_1"]
    assert "personalized_tip_2" not in known
    assert "personalized_tip_1" not in variables(parse("christmas-signup"))


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("christmas-signup", {"consent": False}, "no consent"),
        ("onboarding-start", {"payment_confirmed": False}, "payment is not confirmed"),
    ],
)
def test_without_consent_or_payment__nothing_starts(path: str, body: dict[str, Any], said: str) -> None:
    payload = parse(path, **body)

    assert said in (payload.ignored_because() or "")
    assert payload.contact() is not None


def test_consent_that_was_not_given__is_no_consent() -> None:
    payload = CHRISTMAS.webhook("christmas-signup").payload.model_validate(ONE)

    assert payload.ignored_because() is not None


# -- what makes an enrolment the same ------------------------------------------------------------------------


def test_enrolment_keys__are_the_business_keys() -> None:
    keys = {
        "signup": parse("christmas-signup").enrolment_key(),
        "no-show": parse("calendly-noshow", calendly_event_uri="https://c.test/E1").enrolment_key(),
        "maybe": parse("postcall-maybe", call_date="2026-12-01").enrolment_key(),
        "paid": parse("onboarding-start", payment_date="2026-12-01").enrolment_key(),
        "booking": booking().enrolment_key(),
    }

    assert keys == {
        "signup": "ada@resend.dev",
        "no-show": "ada@resend.dev|https://c.test/E1",
        "maybe": "ada@resend.dev|2026-12-01",
        "paid": "ada@resend.dev|2026-12-01",
        "booking": "ana@resend.dev|u1",
    }


#: Where a body says only by its date or time which one it is.
DATED = [("postcall-maybe", "call_date"), ("onboarding-start", "payment_date")]
TIMED = [*DATED, ("calendly-noshow", "scheduled_time")]
START, END = datetime(1971, 1, 1), datetime(2199, 1, 1)  # noqa: DTZ001  (given a zone below)
MOMENTS = st.datetimes(min_value=START, max_value=END, timezones=st.just(UTC))
OFFSETS = st.integers(min_value=-14 * 60, max_value=14 * 60).map(lambda m: timezone(timedelta(minutes=m)))


@st.composite
def spelled(draw: st.DrawFn, moment: datetime) -> str:
    """One of the ways in which a sender may write a moment in JSON."""
    local = moment.astimezone(draw(OFFSETS | st.just(UTC)))
    text = local.isoformat(sep=draw(st.sampled_from("T ")), timespec=draw(st.sampled_from(["auto", "microseconds"])))
    return text.replace("+00:00", draw(st.sampled_from(["+00:00", "-00:00", "Z", "z"])))


@given(data=st.data(), moment=MOMENTS | MOMENTS.map(lambda m: m.replace(hour=0, minute=0, second=0, microsecond=0)))
@pytest.mark.parametrize(("path", "field"), TIMED)
def test_one_moment__is_one_enrolment_however_it_is_written(
    path: str, field: str, data: st.DataObject, moment: datetime
) -> None:
    first, second = (parse(path, **{field: data.draw(spelled(moment))}) for _ in range(2))

    assert first.enrolment_key() == second.enrolment_key()


@given(data=st.data(), moment=MOMENTS)
@pytest.mark.parametrize(("path", "field"), DATED)
def test_a_day__is_the_day_of_its_moments_in_utc(path: str, field: str, data: st.DataObject, moment: datetime) -> None:
    key = parse(path, **{field: data.draw(spelled(moment))}).enrolment_key()

    assert key == parse(path, **{field: moment.date().isoformat()}).enrolment_key()
    assert key != parse(path, **{field: (moment.date() + timedelta(days=1)).isoformat()}).enrolment_key()


@given(data=st.data(), moment=MOMENTS, apart=st.integers(min_value=1, max_value=10**6))
def test_another_moment__is_another_missed_call(data: st.DataObject, moment: datetime, apart: int) -> None:
    times = (moment, moment + timedelta(seconds=apart))
    first, second = (parse("calendly-noshow", scheduled_time=data.draw(spelled(time))) for time in times)

    assert first.enrolment_key() != second.enrolment_key()


def test_another_booking__is_another_enrolment() -> None:
    assert booking(uid="u2").enrolment_key() != booking().enrolment_key()


# -- bookings ------------------------------------------------------------------------------------------------


def test_a_booking__is_told_in_the_attendees_own_time() -> None:
    payload = booking(metadata={"videoCallUrl": "https://meet.test/x"}, title="Consult")

    assert variables(payload) == {
        "first_name": "Ana",
        "call_date": "Tuesday 1 December 2026",
        "call_time": "12:00 (America/Toronto)",
        "call_title": "Consult",
        "meeting_link": "https://meet.test/x",
    }


@pytest.mark.parametrize("zone", ["Nowhere/City", "", "../../etc/passwd", None])
def test_a_time_zone_that_is_none__leaves_utc(zone: str | None) -> None:
    attendee = {"email": "ana@resend.dev", "timeZone": zone}

    assert variables(booking(attendees=[attendee]))["call_time"] == "17:00 UTC"


@pytest.mark.parametrize("link", ["javascript:alert(1)", 5, None])
def test_a_link_that_is_no_link__is_unknown(link: Any) -> None:
    assert "meeting_link" not in variables(booking(metadata={"videoCallUrl": link}))


@pytest.mark.parametrize("trigger", ["PING", "MEETING_ENDED", "SOMETHING_NEW"])
def test_other_triggers__start_nothing(trigger: str) -> None:
    payload = CHRISTMAS.webhook("calcom-booking").payload.model_validate({"triggerEvent": trigger, "payload": {}})

    assert payload.ignored_because() == f"{trigger} starts no sequence"
    assert payload.contact() is None


def test_a_new_booking_without_its_facts__names_what_is_missing() -> None:
    with pytest.raises(ValidationError) as told:
        CHRISTMAS.webhook("calcom-booking").payload.model_validate({"triggerEvent": "BOOKING_CREATED", "payload": {}})

    (item,) = explain(told.value)
    assert "BOOKING_CREATED needs payload.uid, payload.startTime, payload.attendees" in item["msg"]


# -- what an explanation says --------------------------------------------------------------------------------


def test_an_explanation__names_the_field_and_shows_nothing_of_the_sender() -> None:
    with pytest.raises(ValidationError) as told:
        parse("christmas-signup", red_systems="hunter2", email="hunter2")

    explained = explain(told.value)
    assert {item["field"] for item in explained} == {"email", "assessment_data.red_systems"}
    assert "hunter2" not in str(explained)
    assert all(item["msg"] and item["type"] for item in explained)


# -- the starter copy ----------------------------------------------------------------------------------------

CASES = [(s.name, t) for s in CHRISTMAS.sequences for t in s.templates]


@pytest.mark.parametrize("facts", [{}, FACTS], ids=["no facts", "all facts"])
@pytest.mark.parametrize(("sequence", "name"), CASES)
def test_f11_f19_starter_copy__suits_every_kind_of_contact(sequence: str, name: str, facts: dict[str, Any]) -> None:
    subject, body = CHRISTMAS.starter(name)
    template = Template(name, subject, body, "", "")

    for values in sample_contexts(CAMPAIGNS, "christmas", sequence, facts, NOW).values():
        mail = render(template, values, footer=FOOTER)

        for part in (mail.subject, mail.html.split("</style>")[1], mail.text):
            assert "{{" not in part
            assert "None" not in part
            assert "{%" not in part


def test_there_are__nineteen_mails() -> None:
    assert len(CASES) == len(set(CHRISTMAS.templates)) == 19
    assert {p.stem for p in (CHRISTMAS.folder / "copy").glob("*.html")} == set(CHRISTMAS.templates)


def test_gaps__are_in_order() -> None:
    for sequence in CHRISTMAS.sequences:
        gaps = [step.after for step in sequence.steps]
        assert gaps == sorted(gaps)
        assert all(isinstance(gap, timedelta) for gap in gaps)


def test_f11_a_variable_that_no_contact_has__is_refused() -> None:
    template = Template("christmas_email_1", "Hi", "<p>{{ SpotsLeft }}</p>", "", "")

    with pytest.raises(TemplateBroken, match="'SpotsLeft' is undefined"):
        render(template, parse("christmas-signup").variables(FACTS, NOW), footer=FOOTER)


def test_f18_paid_is_above_booked_above_post_call_above_no_show_above_nurture() -> None:
    ranked = sorted(CHRISTMAS.sequences, key=lambda s: s.priority, reverse=True)

    assert [s.name for s in ranked] == ["onboarding", "precall", "postcall", "noshow", "nurture"]
    assert len({s.priority for s in ranked}) == 5


def test_f18_who_books_or_pays__leaves_what_asked_for_it() -> None:
    left = {s.name: {(e.on.value, e.ever) for e in s.exits} for s in CHRISTMAS.sequences}

    assert left == {
        "nurture": {("booked", True), ("paid", True)},
        "noshow": {("booked", False), ("paid", True)},
        "postcall": {("paid", True)},
        "precall": {("paid", True)},
        "onboarding": set(),
    }


@pytest.mark.parametrize(
    ("path", "basis", "more"),
    [
        ("christmas-signup", "express", {"consent": True, "consent_text": "Yes, send me tips"}),
        ("calendly-noshow", "inquiry", {}),
        ("postcall-maybe", "inquiry", {}),
        ("calcom-booking", "inquiry", {"triggerEvent": "BOOKING_CANCELLED"}),
        ("onboarding-start", "purchase", {"payment_confirmed": True, "payment_date": "2026-11-30"}),
    ],
)
def test_f18_each_webhook__says_what_allows_its_mails(path: str, basis: str, more: dict[str, Any]) -> None:
    given = parse(path, **more)

    assert given.basis() == basis
    assert given.consent_wording() == more.get("consent_text")
    assert given.consented_at(AT) == (datetime(2026, 11, 30, tzinfo=UTC) if basis == "purchase" else AT)


def test_f19_a_payment_of_tomorrow__counts_from_today_and_one_without_a_date_too() -> None:
    paid = {"payment_confirmed": True}

    for body in ({**paid, "payment_date": "2099-01-01"}, paid):
        assert parse("onboarding-start", **body).consented_at(AT) == AT


@pytest.mark.parametrize("field", ["first_name", "name"])
@pytest.mark.parametrize("name", ["Win at https://spam.test", "WWW.spam.test", "sam@spam.test"])
def test_a_name_with_a_link_in_it__is_refused_from_the_public_form(field: str, name: str) -> None:
    with pytest.raises(ValidationError, match="must be a name, without a link"):
        parse("christmas-signup", **{field: name})


@pytest.mark.parametrize("name", ["St.John", "J.R. O'Neil-Smith", "Zoë", "", "Dr. 李"])
def test_any_name__is_a_name(name: str) -> None:
    assert variables(parse("christmas-signup", first_name=name)).get("first_name") == (name or None)


def test_f18_what_stripe_and_docusign_say__rests_on_a_purchase() -> None:
    natives = CHRISTMAS.webhook("onboarding-start").natives

    read = [native.payload.model_validate(body) for native in natives for body in native.examples.values()]

    assert {payload.basis() for payload in read} == {"purchase"}
    assert {payload.consented_at(AT) for payload in read} == {AT}
