"""Counts of the public form under a number, without an index beside it"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    # Counts of ten minutes: nothing is lost that matters.
    op.drop_table("form_limit")
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


def downgrade() -> None:
    op.drop_table("form_limit")
    op.create_table(
        "form_limit",
        sa.Column("bucket", sa.Uuid(), nullable=False),
        sa.Column("posts", sa.Integer(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("bucket", name=op.f("pk_form_limit")),
        prefixes=["UNLOGGED"],
    )
    op.create_index("ix_form_limit_until", "form_limit", ["until"])
