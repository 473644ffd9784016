"""What Resend accepts as a mail: one check a field, in the order the fields are reported."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parseaddr
from typing import Any

from .clock import parse_time
from .resend_errors import ADDRESS_FORMAT, ResendRefused, invalid, missing, testing_only, unverified

Mail = dict[str, Any]

ADDRESS = re.compile(r"[^\s@<>\",;:\\\[\]()]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
IN_SOME_TIME = re.compile(r"in (\d+) ?(min|minute|hour|day)s?", re.IGNORECASE)
EXAMPLE_DOMAINS = frozenset({"example.com", "example.org", "example.net", "test.com"})
TEST_DOMAIN = "resend.dev"
MAX_RECIPIENTS = 50
MAX_ATTACHMENT_BYTES = 40_000_000
HORIZON = timedelta(days=30)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a check needs to know of the account."""

    now: datetime
    verified_domains: frozenset[str]
    refuse_example_domains: bool
    owner: str
    in_batch: bool = False


def bare(address: str) -> str:
    """`Ana Roy <Ana@x.ca>` → `ana@x.ca`."""
    return parseaddr(address)[1].lower() if "<" in address else address.strip().lower()


def addresses(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def recipients(mail: Mail) -> list[str]:
    """Everyone who gets the mail: each counts towards the quota."""
    return [bare(address) for field in ("to", "cc", "bcc") for address in addresses(mail.get(field))]


def _check_present(mail: Mail) -> None:
    for field in ("from", "to"):
        if not mail.get(field):
            raise missing(f"`{field}`")
    if "template" in mail:
        return
    if not mail.get("subject"):
        raise missing("`subject`")
    if mail.get("html") is None and mail.get("text") is None:
        raise missing("`html` or `text`")


def _check_types(mail: Mail) -> None:
    for field in ("from", "subject", "html", "text"):
        if not isinstance(mail.get(field), str | None):
            raise invalid(f"The `{field}` field must be a `string`.")


def _check_address(field: str, address: Any) -> None:
    if not isinstance(address, str) or not ADDRESS.fullmatch(bare(address)):
        raise invalid(f"Invalid `{field}` field. {ADDRESS_FORMAT}")


def _check_addresses(mail: Mail, rules: Rules) -> None:
    for field in ("to", "cc", "bcc", "reply_to"):
        if not isinstance(mail.get(field), str | list | None):
            raise invalid(f"Invalid `{field}` field. {ADDRESS_FORMAT}")
        found = addresses(mail.get(field))
        if len(found) > MAX_RECIPIENTS:
            raise invalid(f"The `{field}` field must have at most {MAX_RECIPIENTS} items.")
        for address in found:
            _check_address(field, address)
            _check_not_example(field, bare(address), rules)


def _check_not_example(field: str, address: str, rules: Rules) -> None:
    if rules.refuse_example_domains and field != "reply_to" and address.split("@")[1] in EXAMPLE_DOMAINS:
        raise invalid(
            f"Invalid `{field}` field. Please use our testing email address instead of domains like "
            "`example.com`. See our documentation for more information."
        )


def _check_sender(mail: Mail, rules: Rules) -> None:
    _check_address("from", mail["from"])
    domain = bare(mail["from"]).split("@")[1]
    if domain == TEST_DOMAIN:
        _check_testing_only(mail, rules)
    elif domain not in rules.verified_domains:
        raise unverified(domain)


def _check_testing_only(mail: Mail, rules: Rules) -> None:
    for address in recipients(mail):
        if address != rules.owner and not address.endswith("@" + TEST_DOMAIN):
            raise testing_only(rules.owner)


def objects(mail: Mail, field: str) -> list[dict[str, Any]]:
    found = mail.get(field) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise invalid(f"The `{field}` field must be an array of objects.")
    return found


def _check_tags(mail: Mail) -> None:
    for tag in objects(mail, "tags"):
        for part in (tag.get("name"), tag.get("value")):
            if not isinstance(part, str) or not TAG.fullmatch(part):
                raise invalid(
                    "Tags should only contain ASCII letters, numbers, underscores, or dashes, and be at most "
                    "256 characters long."
                )


def _check_headers(mail: Mail) -> None:
    headers = mail.get("headers") or {}
    if not isinstance(headers, dict):
        raise invalid("The `headers` field must be an `object`.")
    for name, value in headers.items():
        if not isinstance(value, str) or re.search(r"[\r\n]", name + value):
            raise invalid(f"Invalid header `{name}`: header values must be strings on one line.")


def _check_attachments(mail: Mail, rules: Rules) -> None:
    attachments = objects(mail, "attachments")
    if attachments and rules.in_batch:
        raise invalid("The `attachments` field is not supported in batch emails.")
    for attachment in attachments:
        if not attachment.get("content") and not attachment.get("path"):
            raise ResendRefused(422, "invalid_attachment", "Attachment must have either a `content` or `path`.")
    if sum(len(attachment.get("content") or "") for attachment in attachments) > MAX_ATTACHMENT_BYTES:
        raise ResendRefused(422, "invalid_attachment", "Attachments must not exceed 40MB in total.")


def scheduled_time(value: Any, now: datetime) -> datetime | None:
    """ISO 8601, or the plainest of the natural forms ("in 5 min"); others are not understood here."""
    if value is None:
        return None
    words = IN_SOME_TIME.fullmatch(str(value).strip())
    if words:
        unit = {"m": "minutes", "h": "hours", "d": "days"}[words[2][0].lower()]
        moment: datetime | None = now + timedelta(**{unit: int(words[1])})
    else:
        moment = parse_time(str(value))
    if moment is None or moment > now + HORIZON:
        raise invalid("Invalid `scheduled_at` field. It must be a date at most 30 days in the future.")
    return moment


def check_mail(mail: Any, rules: Rules) -> None:
    if not isinstance(mail, dict):
        raise invalid("The request body must be an object.")
    _check_present(mail)
    _check_types(mail)
    _check_addresses(mail, rules)
    _check_tags(mail)
    _check_headers(mail)
    _check_attachments(mail, rules)
    scheduled_time(mail.get("scheduled_at"), rules.now)
    _check_sender(mail, rules)
