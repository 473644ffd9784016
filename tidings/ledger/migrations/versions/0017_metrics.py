"""What processes count, and what was sent and reported lately without reading all of it"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "metric",
        sa.Column("name", sa.Text(), nullable=False, comment="a sample's, such as tidings_webhooks_total"),
        sa.Column("labels", sa.Text(), nullable=False, comment="as JSON, in the order of their names"),
        sa.Column(
            "value",
            sa.Float(),
            nullable=False,
            comment="what all processes have counted together, or one has said last",
        ),
        sa.PrimaryKeyConstraint("name", "labels", name="pk_metric"),
    )
    op.create_index("ix_message_sent_at", "message", ["sent_at"], postgresql_where=sa.text("sent_at IS NOT NULL"))
    op.create_index(
        "ix_message_failed",
        "message",
        ["campaign", "template"],
        postgresql_where=sa.text("state IN ('failed', 'unknown')"),
    )
    op.create_index("ix_outcome_received_at", "outcome", ["received_at"])


def downgrade() -> None:
    op.drop_index("ix_outcome_received_at", table_name="outcome")
    op.drop_index("ix_message_failed", table_name="message")
    op.drop_index("ix_message_sent_at", table_name="message")
    op.drop_table("metric")
