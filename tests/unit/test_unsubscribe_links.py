"""Links by which people leave: opaque, ours alone, and good for ever."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tidings.unsubscribe import Links

LINKS = Links(secret="a" * 32, public_url="https://t.test/", sender="Clinic <hello@mail.clinic.ca>")


def test_a_link__leads_back_to_its_enrolment() -> None:
    enrolment = uuid4()

    link = LINKS.unsubscribe(enrolment)

    assert link.startswith("https://t.test/unsubscribe/")
    assert LINKS.read(link.rpartition("/")[2]) == enrolment


def test_a_link__stays_the_same_for_the_same_enrolment() -> None:
    enrolment = uuid4()

    assert LINKS.unsubscribe(enrolment) == LINKS.unsubscribe(enrolment)


def test_headers__offer_one_click_and_mail() -> None:
    headers = LINKS.headers(enrolment := uuid4())

    token = LINKS.unsubscribe(enrolment).rpartition("/")[2]
    assert headers == {
        "List-Unsubscribe": f"<https://t.test/unsubscribe/{token}>, "
        f"<mailto:hello@mail.clinic.ca?subject=unsubscribe%20{token}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }


@pytest.mark.parametrize("sender", ["hello@mail.clinic.ca", "<hello@mail.clinic.ca>", '"A > B" <hello@mail.clinic.ca>'])
def test_the_mailbox__is_the_address_of_the_sender(sender: str) -> None:
    header = Links(secret="a" * 32, public_url="https://t.test", sender=sender).headers(uuid4())["List-Unsubscribe"]

    assert "<mailto:hello@mail.clinic.ca?" in header


@pytest.mark.parametrize("token", ["", "x", "é", "..", "a.b", "a" * 5000, "%00"])
def test_words_that_we_did_not_write__lead_nowhere(token: str) -> None:
    assert LINKS.read(token) is None


def test_a_link_of_another_key__leads_nowhere() -> None:
    other = Links(secret="b" * 32, public_url="https://t.test", sender="x@y.z").unsubscribe(uuid4())

    assert LINKS.read(other.rpartition("/")[2]) is None


def test_a_changed_link__leads_nowhere() -> None:
    token = LINKS.unsubscribe(uuid4()).rpartition("/")[2]

    assert LINKS.read(("A" if token[0] != "A" else "B") + token[1:]) is None
