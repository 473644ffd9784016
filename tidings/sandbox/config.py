"""What the sandbox is started with, and what can be changed while it runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .clock import Clock, system_clock

DEFAULT_SIGNUP_URL = "http://127.0.0.1:8000/webhook/christmas-signup"


class Settings(BaseModel):
    """Every knob of `PUT /control/settings`. A rate or quota of 0 or null means no limit."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    resend_rate: float = Field(5, ge=0, description="requests a second, the whole team together")
    notion_rate: float = Field(3, ge=0, description="requests a second on average")
    notion_burst: int = Field(10, ge=1, description="requests Notion lets through at once")
    deliver_after: float = Field(0.2, ge=0, description="seconds from acceptance to delivery")

    resend_tokens: list[str] | None = Field(None, description="accepted API keys; null: any re_…")
    notion_tokens: list[str] | None = Field(None, description="accepted tokens; null: any ntn_… or secret_…")
    refuse_example_domains: bool = Field(True, description="refuse example.com recipients as Resend does")
    owner_email: str = Field("owner@tidings.test", description="whom onboarding@resend.dev may write to")
    daily_quota: int | None = Field(None, description="recipients a UTC day")
    monthly_quota: int | None = Field(None, description="recipients a calendar month")
    auto_suppress: bool = Field(False, description="suppress an address after a bounce or complaint")

    webhook_url: str | None = Field(None, description="where Resend's events are posted")
    webhook_secret: str | None = Field(None, description="whsec_… they are signed with; null: made up once")
    webhook_events: list[str] | None = Field(None, description="events webhook_url hears of; null: all")
    webhook_retry_factor: float = Field(1.0, ge=0, description="scales Svix's retry schedule")
    webhook_timeout: float = Field(10.0, gt=0, description="seconds an endpoint has to answer")
    webhook_concurrency: int = Field(8, ge=1, description="deliveries in flight at once")
    webhook_duplicate: float = Field(0.0, ge=0, le=1, description="share of events delivered twice")
    webhook_drop: float = Field(0.0, ge=0, le=1, description="share of events never delivered")
    webhook_reorder: float = Field(0.0, ge=0, description="each delivery waits up to this many seconds")

    calendly_rate: float = Field(500, ge=0, description="requests a minute")
    calendly_tokens: list[str] | None = Field(None, description="accepted access tokens; null: any")
    calendly_owner: bool = Field(True, description="whether the token's user may see the whole organization")
    calendly_webhook_url: str | None = Field(None, description="where an active subscription posts from the start")
    calendly_signing_key: str | None = Field(None, description="what that subscription signs with")
    calcom_rate: float = Field(120, ge=0, description="requests a minute")
    calcom_tokens: list[str] | None = Field(None, description="accepted API keys; null: any cal_…")
    calcom_webhook_url: str | None = Field(None, description="where Cal.com's triggers are posted")
    calcom_webhook_secret: str | None = Field(None, description="what they are signed with")
    stripe_rate: float = Field(100, ge=0, description="requests a second")
    stripe_tokens: list[str] | None = Field(None, description="accepted API keys; null: any sk_… or rk_…")
    stripe_webhook_url: str | None = Field(None, description="where Stripe's events are posted")
    stripe_webhook_secret: str | None = Field(None, description="whsec_… that they are signed with")

    truncate_rich_text_at: int = Field(25, ge=0, description="rich text items in a page object; 0: all")
    signup_url: str = Field(DEFAULT_SIGNUP_URL, description="where the funnel page posts")


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """`settings` holds what the command line set; later changes through the control routes win over it."""

    data_dir: Path
    settings: dict[str, Any] = field(default_factory=dict)
    clock: Clock = system_clock
