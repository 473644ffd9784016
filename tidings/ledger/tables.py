"""The ledger's tables. PostgreSQL is the truth; Prefect carries ids, Notion is a mirror."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Moment = DateTime(timezone=True)

contact = Table(
    "contact",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("email", Text, nullable=False, unique=True, comment="lower-cased; what makes a contact the same"),
    Column("first_name", Text),
    Column("business_name", Text),
    Column("consent", Boolean, comment="what the contact last said; null when never asked"),
    Column("consent_at", Moment, comment="when the contact last said so"),
    Column("attributes", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("notion_page_id", Text),
    Column("mirrored_at", Moment, comment="the updated_at that Notion shows"),
    Index(
        "ix_contact_unmirrored",
        "updated_at",
        postgresql_where=text("mirrored_at IS DISTINCT FROM updated_at"),
    ),
)

event = Table(
    "event",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("source", Text, nullable=False, comment="the webhook's path"),
    Column("key", Text, nullable=False, comment="the sender's event id, else a digest of the body"),
    Column("campaign", Text, nullable=False),
    Column("deployment", Text, nullable=False),
    Column("body", Text, nullable=False, comment="as it was sent"),
    Column("contact_id", Uuid, ForeignKey("contact.id")),
    Column("contact_created", Boolean, nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("testing_minute", Float, comment="seconds; null outside of testing, fixed when received"),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("dispatch_id", Uuid, comment="events handed to Prefect together share it: the run's idempotency key"),
    Column("flow_run_id", Uuid),
    Column("dispatched_at", Moment),
    Column("handled_at", Moment),
    Column("origin", Text, comment="null: its sender posted it; else the service whose own list it was found in"),
    Column("signed_id", Text, comment="digest of the id it was signed with, where no route is signed: good for one"),
    UniqueConstraint("source", "key"),
    Index("ix_event_waiting", "received_at", postgresql_where=text("state IN ('accepted', 'dispatched')")),
    Index("ix_event_dispatch_id", "dispatch_id"),
    Index(
        "ix_event_pressure",
        "deployment",
        "dispatch_id",
        postgresql_where=text("state IN ('accepted', 'dispatched')"),
    ),
    Index("ix_event_received_at", "received_at"),
    Index("ix_event_state_received_at", "state", "received_at"),
    Index("ix_event_source_received_at", "source", "received_at"),
    Index("ix_event_contact_id", "contact_id"),
    Index("ix_event_signed_id", "signed_id", postgresql_where=text("signed_id IS NOT NULL")),
)

booking = Table(
    "booking",
    metadata,
    Column("key", Text, primary_key=True, comment="the sender's name and its id; a no-show has a row of its own"),
    Column("contact_id", Uuid, ForeignKey("contact.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("starts_at", Moment),
    Column("details", JSONB, nullable=False, server_default=text("'{}'::jsonb"), comment="names, zone, links"),
    Column("booked_at", Moment, comment="when it was made; null until that is said"),
    Column("said_at", Moment, nullable=False, comment="when its state was said, by the sender's clock"),
    Index("ix_booking_contact_id", "contact_id"),
)

milestone = Table(
    "milestone",
    metadata,
    Column("kind", Text, primary_key=True, comment="paid or signed"),
    Column("key", Text, primary_key=True, comment="the sender's id of the payment or the envelope"),
    Column("contact_id", Uuid, ForeignKey("contact.id"), nullable=False),
    Column("at", Moment, nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("used_at", Moment, comment="when an enrolment was made with it"),
    Index("ix_milestone_contact_id", "contact_id"),
)

dispatch = Table(
    "dispatch",
    metadata,
    Column("id", Uuid, primary_key=True, comment="also the idempotency key of its run: dispatch:<id>"),
    Column("deployment", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("closes_at", Moment, comment="until when it is open for further events; null: it has its events"),
    Index("ix_dispatch_deployment_created_at", "deployment", "created_at"),
    Index("ix_dispatch_open", "deployment", "closes_at", postgresql_where=text("closes_at IS NOT NULL")),
)

enrolment = Table(
    "enrolment",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("contact_id", Uuid, ForeignKey("contact.id"), nullable=False),
    Column("event_id", Uuid, ForeignKey("event.id"), nullable=False),
    Column("campaign", Text, nullable=False),
    Column("sequence", Text, nullable=False),
    Column("key", Text, nullable=False, comment="the business key: contact, booking or payment"),
    Column("booking", Text, comment="the booking it is about, when it ends or moves with that"),
    Column("segment", Text),
    Column("variables", JSONB, nullable=False),
    Column("anchor", Moment, nullable=False),
    Column("testing_minute", Float),
    Column("consent_basis", Text, comment="express, purchase or inquiry; null: enrolled before evidence was kept"),
    Column("consent_source", Text, comment="the webhook that it came in by"),
    Column("consent_at", Moment),
    Column("consent_wording", Text, comment="what the contact was told, or has done"),
    Column("consent_address", Text),
    Column("consent_expires_at", Moment, comment="when implied consent runs out"),
    Column("confirmed_at", Moment, comment="the click in the mail that asks for it (double opt-in)"),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("notion_page_id", Text),
    Column("mirrored_at", Moment),
    UniqueConstraint("campaign", "sequence", "key"),
    Index("ix_enrolment_contact_id", "contact_id"),
    Index("ix_enrolment_event_id", "event_id"),
    Index("ix_enrolment_booking", "booking", postgresql_where=text("booking IS NOT NULL")),
    Index(
        "ix_enrolment_unmirrored",
        "updated_at",
        postgresql_where=text("mirrored_at IS DISTINCT FROM updated_at"),
    ),
)

claim = Table(
    "claim",
    metadata,
    Column("id", Uuid, primary_key=True, comment="also the idempotency key at Resend: tidings/<id>"),
    Column("campaign", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("lease_until", Moment, nullable=False),
    Column("flow_run_id", Uuid, comment="the Prefect run that holds the lease"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("first_sent_at", Moment, comment="when Resend first saw the key; it forgets it after 24 h"),
    Column("last_sent_at", Moment, comment="when Resend was last called with the key"),
    Column("settled_at", Moment),
    Index("ix_claim_open", "lease_until", postgresql_where=text("settled_at IS NULL")),
)

message = Table(
    "message",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("enrolment_id", Uuid, ForeignKey("enrolment.id"), nullable=False),
    Column("campaign", Text, nullable=False),
    Column("sequence", Text, nullable=False),
    Column("position", SmallInteger, nullable=False),
    Column("template", Text, nullable=False),
    Column("due_at", Moment, nullable=False),
    Column("slot_at", Moment, nullable=False, comment="end of the minute that due_at falls in: the send run's"),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("flow_run_id", Uuid, comment="the Prefect run that is to send it, or has"),
    Column("claim_id", Uuid, ForeignKey("claim.id")),
    Column("payload", Text, comment="what Resend is given, byte for byte, stored before the call"),
    Column("provider_id", Text, comment="Resend's id"),
    Column("sent_at", Moment),
    Column("outcome_at", Moment, comment="when Resend reported what became of it"),
    Column("delivered_at", Moment),
    Column("delayed_at", Moment, comment="first report that the recipient's server lets it wait"),
    Column("opened_at", Moment, comment="first opening by a person; scanners' are not counted"),
    Column("clicked_at", Moment, comment="first click by a person; scanners' are not counted"),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("notion_page_id", Text),
    Column("mirrored_at", Moment),
    UniqueConstraint("enrolment_id", "position"),
    Index("ix_message_due", "campaign", "template", "slot_at", postgresql_where=text("state = 'scheduled'")),
    Index("ix_message_late", "slot_at", postgresql_where=text("state = 'scheduled'")),
    Index(
        "ix_message_unplanned",
        "slot_at",
        "template",
        postgresql_where=text("state = 'scheduled' AND flow_run_id IS NULL"),
    ),
    Index("ix_message_flow_run_id", "flow_run_id", postgresql_where=text("state = 'scheduled'")),
    Index("ix_message_claim_id", "claim_id", postgresql_where=text("claim_id IS NOT NULL")),
    Index("ix_message_provider_id", "provider_id", unique=True, postgresql_where=text("provider_id IS NOT NULL")),
    Index("ix_message_sent_at", "sent_at", postgresql_where=text("sent_at IS NOT NULL")),
    Index("ix_message_failed", "campaign", "template", postgresql_where=text("state IN ('failed', 'unknown')")),
    Index(
        "ix_message_unmirrored",
        "updated_at",
        postgresql_where=text("state <> 'scheduled' AND mirrored_at IS DISTINCT FROM updated_at"),
    ),
)

outcome = Table(
    "outcome",
    metadata,
    Column("svix_id", Text, primary_key=True, comment="Resend repeats and reorders; this makes each count once"),
    Column("type", Text, nullable=False),
    Column("provider_id", Text),
    Column("state", Text, comment="what it makes of the message; null when it changes nothing"),
    Column("severity", Text, comment="what it says about the address: hard, soft or complaint"),
    Column("reason", Text),
    Column("occurred_at", Moment, nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("body", Text, nullable=False, comment="as Resend sent it"),
    Index("ix_outcome_provider_id", "provider_id"),
    Index("ix_outcome_received_at", "received_at"),
)

suppression = Table(
    "suppression",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("contact_id", Uuid, ForeignKey("contact.id"), nullable=False),
    Column("sequence", Text, comment="only this series; null: everything"),
    Column("campaign", Text, comment="only this campaign's series of that name; null: of all"),
    Column("reason", Text, nullable=False),
    Column("source", Text, nullable=False, comment="who or what said so: link, resend, operator"),
    Column("created_at", Moment, nullable=False),
    Column("until", Moment, comment="ends by itself then; null: only when it is lifted"),
    Column("lifted_at", Moment),
    Column("lifted_because", Text),
    Index("ix_suppression_active", "contact_id", postgresql_where=text("lifted_at IS NULL")),
)

# Unlogged: a crash of PostgreSQL forgets the counts, which harms nobody, and each costs less.
form_limit = Table(
    "form_limit",
    metadata,
    Column("bucket", BigInteger, primary_key=True, autoincrement=False, comment="keyed digest of an address"),
    Column("posts", Integer, nullable=False, comment="new events since the window began, refused ones too"),
    Column("until", Moment, nullable=False, comment="when the window ends and the count begins anew"),
    prefixes=["UNLOGGED"],
)

form_tally = Table(
    "form_tally",
    metadata,
    Column("day", Date, primary_key=True, comment="UTC"),
    Column("source", Text, primary_key=True, comment="the webhook's path"),
    Column("reason", Text, primary_key=True, comment="why the public form turned it away"),
    Column("times", Integer, nullable=False),
)

memo = Table(
    "memo",
    metadata,
    Column("key", Text, primary_key=True, comment="such as which data source a Notion database id stands for"),
    Column("value", Text, nullable=False),
    Column("updated_at", Moment, nullable=False),
)

metric = Table(
    "metric",
    metadata,
    Column("name", Text, primary_key=True, comment="a sample's, such as tidings_webhooks_total"),
    Column("labels", Text, primary_key=True, comment="as JSON, in the order of their names"),
    Column("value", Float, nullable=False, comment="what all processes have counted together, or one has said last"),
)

alert = Table(
    "alert",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("key", Text, nullable=False, comment="what is wrong, the same for as long as it is: kind and subject"),
    Column("kind", Text, nullable=False, comment="such as late-mail"),
    Column("title", Text, nullable=False, comment="one line, without addresses"),
    Column("body", Text, nullable=False, comment="cause and cure, and the command or page that shows more"),
    Column("times", Integer, nullable=False, server_default=text("1"), comment="how often it was seen"),
    Column("opened_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False, comment="last time that it was so"),
    Column("told_at", Moment, comment="when a channel took it; null: nobody was told yet"),
    Column("recovered_at", Moment, comment="when it was seen to be over"),
    Column("recovery_told_at", Moment),
    Index("ix_alert_open", "key", unique=True, postgresql_where=text("recovered_at IS NULL")),
    Index("ix_alert_opened_at", "opened_at"),
    Index("ix_alert_untold", "opened_at", postgresql_where=text("told_at IS NULL OR recovery_told_at IS NULL")),
)

canary = Table(
    "canary",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("started_at", Moment, nullable=False),
    Column("event_id", Uuid, comment="the event that its webhook became"),
    Column("returned_at", Moment, comment="when Resend reported its mail as delivered"),
    Column("problem", Text, comment="why it has not come back, and where it was lost"),
    Index("ix_canary_started_at", "started_at"),
)
