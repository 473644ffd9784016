"""When each sender last posted, and which alerts nobody was told of, without reading whole tables"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.create_index("ix_event_source_received_at", "event", ["source", "received_at"])
    op.create_index(
        "ix_alert_untold",
        "alert",
        ["opened_at"],
        postgresql_where=sa.text("told_at IS NULL OR recovery_told_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_alert_untold", table_name="alert")
    op.drop_index("ix_event_source_received_at", table_name="event")
