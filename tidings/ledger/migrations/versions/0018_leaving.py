"""When Resend was last called with a claim's key"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0016"


def upgrade() -> None:
    op.add_column(
        "claim",
        sa.Column("last_sent_at", sa.DateTime(timezone=True), comment="when Resend was last called with the key"),
    )
    # Of calls before this nobody knows better.
    op.execute("UPDATE claim SET last_sent_at = now() WHERE settled_at IS NULL AND first_sent_at IS NOT NULL")


def downgrade() -> None:
    op.drop_column("claim", "last_sent_at")
