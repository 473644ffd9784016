"""Evidence of consent, what people did with mails, and suppressions that end"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

MOMENT = sa.DateTime(timezone=True)
#: Columns by table: name, type and comment.
ADDED: dict[str, list[tuple[str, Any, str | None]]] = {
    "contact": [("consent_at", MOMENT, "when the contact last said so")],
    "enrolment": [
        ("consent_basis", sa.Text(), "express, purchase or inquiry; null: enrolled before evidence was kept"),
        ("consent_source", sa.Text(), "the webhook that it came in by"),
        ("consent_at", MOMENT, None),
        ("consent_wording", sa.Text(), "what the contact was told, or has done"),
        ("consent_address", sa.Text(), None),
        ("consent_expires_at", MOMENT, "when implied consent runs out"),
        ("confirmed_at", MOMENT, "the click in the mail that asks for it (double opt-in)"),
    ],
    "message": [
        ("delivered_at", MOMENT, None),
        ("delayed_at", MOMENT, "first report that the recipient's server lets it wait"),
        ("opened_at", MOMENT, "first opening by a person; scanners' are not counted"),
        ("clicked_at", MOMENT, "first click by a person; scanners' are not counted"),
    ],
    "outcome": [("severity", sa.Text(), "what it says about the address: hard, soft or complaint")],
    "suppression": [
        ("until", MOMENT, "ends by itself then; null: only when it is lifted"),
        ("lifted_because", sa.Text(), None),
    ],
}


def upgrade() -> None:
    for table, columns in ADDED.items():
        for name, kind, comment in columns:
            op.add_column(table, sa.Column(name, kind, nullable=True, comment=comment))
    # What was said before is as old as the contact's last change: no later consent is taken for withdrawn by it.
    op.execute("UPDATE contact SET consent_at = updated_at WHERE consent IS NOT NULL")


def downgrade() -> None:
    for table, columns in ADDED.items():
        for name, _, _ in columns:
            op.drop_column(table, name)
