"""Alerts, canaries, and where an event was found"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "event",
        sa.Column(
            "origin", sa.Text(), comment="null: its sender posted it; else the service whose own list it was found in"
        ),
    )
    op.create_table(
        "alert",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "key", sa.Text(), nullable=False, comment="what is wrong, the same for as long as it is: kind and subject"
        ),
        sa.Column("kind", sa.Text(), nullable=False, comment="such as late-mail"),
        sa.Column("title", sa.Text(), nullable=False, comment="one line, without addresses"),
        sa.Column("body", sa.Text(), nullable=False, comment="cause and cure, and the command or page that shows more"),
        sa.Column("times", sa.Integer(), nullable=False, server_default=sa.text("1"), comment="how often it was seen"),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False, comment="last time that it was so"),
        sa.Column("told_at", MOMENT, comment="when a channel took it; null: nobody was told yet"),
        sa.Column("recovered_at", MOMENT, comment="when it was seen to be over"),
        sa.Column("recovery_told_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_alert"),
    )
    op.create_index("ix_alert_open", "alert", ["key"], unique=True, postgresql_where=sa.text("recovered_at IS NULL"))
    op.create_index("ix_alert_opened_at", "alert", ["opened_at"])
    op.create_table(
        "canary",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("event_id", sa.Uuid(), comment="the event that its webhook became"),
        sa.Column("returned_at", MOMENT, comment="when Resend reported its mail as delivered"),
        sa.Column("problem", sa.Text(), comment="why it has not come back, and where it was lost"),
        sa.PrimaryKeyConstraint("id", name="pk_canary"),
    )
    op.create_index("ix_canary_started_at", "canary", ["started_at"])


def downgrade() -> None:
    op.drop_table("canary")
    op.drop_table("alert")
    op.drop_column("event", "origin")
