"""Which mails have no run yet, without reading all that wait"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.create_index(
        "ix_message_unplanned",
        "message",
        ["slot_at", "template"],
        postgresql_where=sa.text("state = 'scheduled' AND flow_run_id IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_message_unplanned", table_name="message")
