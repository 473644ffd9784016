"""Newest events without reading all of them"""

from alembic import op

revision = "0015"
down_revision = "0013"


def upgrade() -> None:
    op.create_index("ix_event_received_at", "event", ["received_at"])


def downgrade() -> None:
    op.drop_index("ix_event_received_at", table_name="event")
