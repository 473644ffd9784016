"""What the public form lets through and turns away"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "form_limit",
        sa.Column("bucket", sa.BigInteger(), autoincrement=False, nullable=False, comment="keyed digest of an address"),
        sa.Column("posts", sa.Integer(), nullable=False, comment="new events since the window began, refused ones too"),
        sa.Column(
            "until",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="when the window ends and the count begins anew",
        ),
        sa.PrimaryKeyConstraint("bucket", name=op.f("pk_form_limit")),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "form_tally",
        sa.Column("day", sa.Date(), nullable=False, comment="UTC"),
        sa.Column("source", sa.Text(), nullable=False, comment="the webhook's path"),
        sa.Column("reason", sa.Text(), nullable=False, comment="why the public form turned it away"),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("day", "source", "reason", name=op.f("pk_form_tally")),
    )


def downgrade() -> None:
    op.drop_table("form_tally")
    op.drop_table("form_limit")
