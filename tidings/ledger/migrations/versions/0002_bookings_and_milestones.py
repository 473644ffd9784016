"""Bookings, payments and signatures"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "booking",
        sa.Column(
            "key", sa.Text(), nullable=False, comment="the sender's name and its id; a no-show has a row of its own"
        ),
        sa.Column("contact_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "details",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="names, zone, links",
        ),
        sa.Column(
            "booked_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when it was made; null until that is said",
        ),
        sa.Column(
            "said_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="when its state was said, by the sender's clock",
        ),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_booking_contact_id_contact")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_booking")),
    )
    op.create_index("ix_booking_contact_id", "booking", ["contact_id"])
    op.create_table(
        "milestone",
        sa.Column("kind", sa.Text(), nullable=False, comment="paid or signed"),
        sa.Column("key", sa.Text(), nullable=False, comment="the sender's id of the payment or the envelope"),
        sa.Column("contact_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "details", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True, comment="when an enrolment was made with it"),
        sa.ForeignKeyConstraint(["contact_id"], ["contact.id"], name=op.f("fk_milestone_contact_id_contact")),
        sa.PrimaryKeyConstraint("kind", "key", name=op.f("pk_milestone")),
    )
    op.create_index("ix_milestone_contact_id", "milestone", ["contact_id"])
    op.add_column(
        "enrolment",
        sa.Column(
            "booking", sa.Text(), nullable=True, comment="the booking it is about, when it ends or moves with that"
        ),
    )
    op.create_index("ix_enrolment_booking", "enrolment", ["booking"], postgresql_where=sa.text("booking IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("ix_enrolment_booking", table_name="enrolment")
    op.drop_column("enrolment", "booking")
    op.drop_table("milestone")
    op.drop_table("booking")
