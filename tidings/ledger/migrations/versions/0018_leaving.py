"""When Resend was last called with a claim's key, ids that are signed for one route, and series of one campaign"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column(
        "claim",
        sa.Column("last_sent_at", sa.DateTime(timezone=True), comment="when Resend was last called with the key"),
    )
    # Of calls before this nobody knows better.
    op.execute("UPDATE claim SET last_sent_at = now() WHERE settled_at IS NULL AND first_sent_at IS NOT NULL")
    op.add_column(
        "event",
        sa.Column(
            "signed_id",
            sa.Text(),
            comment="digest of the id it was signed with, where no route is signed: good for one",
        ),
    )
    op.create_index("ix_event_signed_id", "event", ["signed_id"], postgresql_where=sa.text("signed_id IS NOT NULL"))
    op.add_column(
        "suppression",
        sa.Column("campaign", sa.Text(), comment="only this campaign's series of that name; null: of all"),
    )


def downgrade() -> None:
    op.drop_column("suppression", "campaign")
    op.drop_column("event", "signed_id")
    op.drop_column("claim", "last_sent_at")
