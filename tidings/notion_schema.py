"""The Notion databases: their properties, by the setting that names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TEXT: dict[str, Any] = {"rich_text": {}}
TITLE: dict[str, Any] = {"title": {}}
EMAIL: dict[str, Any] = {"email": {}}
NUMBER: dict[str, Any] = {"number": {"format": "number"}}
DATE: dict[str, Any] = {"date": {}}
CHECKBOX: dict[str, Any] = {"checkbox": {}}
SELECT: dict[str, Any] = {"select": {"options": []}}

#: Ties a row to the ledger: Notion has no idempotency key, so a row is looked up by this before it is made.
KEY = "Tidings ID"


@dataclass(frozen=True)
class Database:
    """One database: the setting that names it, its title in Notion, and its properties."""

    setting: str
    field: str
    title: str
    properties: Mapping[str, Any]
    required: bool = True


def databases(longest: int) -> list[Database]:
    """All databases. `longest` is the number of mails of the longest sequence: one date property each."""
    sent = {f"Email {n} Sent": DATE for n in range(1, longest + 1)}
    return [
        Database(
            "NOTION_TEMPLATES_DB_ID",
            "notion_templates_db_id",
            "Tidings Email Templates",
            {"Template Name": TITLE, "Subject Line": TEXT, "Email Body HTML": TEXT},
        ),
        Database(
            "NOTION_EMAIL_SEQUENCE_DB_ID",
            "notion_email_sequence_db_id",
            "Tidings Email Sequences",
            {
                "Email": TITLE, "First Name": TEXT, "Business Name": TEXT, "Campaign": SELECT, "Template Type": SELECT,
                "Segment": SELECT, "Assessment Score": NUMBER, "Signup Date": DATE, **sent,
                "Sequence Completed": CHECKBOX, KEY: TEXT,
            },
        ),
        Database(
            "NOTION_CONTACTS_DB_ID",
            "notion_contacts_db_id",
            "Tidings Contacts",
            {
                "Name": TITLE, "email": EMAIL, "Business Name": TEXT, "Assessment Score": NUMBER, "Segment": SELECT,
                "Phase": SELECT, "Booking Status": SELECT, "Diagnostic Call Date": DATE, KEY: TEXT,
            },
        ),
        Database(
            "NOTION_CUSTOMER_PROJECTS_DB_ID",
            "notion_customer_projects_db_id",
            "Tidings Customer Projects",
            {"Name": TITLE, "email": EMAIL, "Business Name": TEXT, "Portal": {"url": {}}},
            required=False,
        ),
        Database(
            "NOTION_EMAIL_ANALYTICS_DB_ID",
            "notion_email_analytics_db_id",
            "Tidings Email Analytics",
            {
                "Template ID": TITLE, "Email": EMAIL, "Email Number": NUMBER, "Status": SELECT, "Sent Date": DATE,
                "Resend Email ID": TEXT, "Error Message": TEXT, KEY: TEXT,
            },
        ),
    ]  # fmt: skip
