"""Every error of Tidings, in one tree.

TidingsError
├── ConfigError            settings are wrong or missing; nothing was started
├── CampaignError          a campaign folder says something that cannot work
├── LedgerUnavailable      PostgreSQL did not answer, is read-only or its disk is full
├── CopyError              the copy in Notion cannot be sent (permanent until a person mends it)
│   ├── TemplateMissing
│   ├── TemplateEmpty
│   ├── TemplateDuplicated
│   ├── TemplateBroken
│   └── MailTooLarge
└── ServiceError           an outside service said no, or said nothing
    ├── Refused            it will say no again: trying again cannot help
    ├── RetryLater         it did nothing and asks to be tried again later
    └── OutcomeUnknown     it may or may not have done the work

Each message names the thing, says what to do, and the class says whether trying again can help.
"""

from __future__ import annotations

from tidings.redact import redact


class TidingsError(Exception):
    """Base of all. `retryable` says whether the same attempt, made again later, can succeed by itself."""

    retryable = False


class ConfigError(TidingsError):
    """Settings are wrong or missing. Carries every problem found, not just the first."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("Tidings cannot start:\n" + "\n".join(f"  - {p}" for p in problems))

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.problems,))


class CampaignError(TidingsError):
    """A campaign folder says something that cannot work."""


class LedgerUnavailable(TidingsError):
    """PostgreSQL did not answer, is read-only, or has no room. Nothing was accepted; try again."""

    retryable = True


class CopyError(TidingsError):
    """The copy in Notion cannot be sent as it stands. A person mends it; then the event is replayed."""


class TemplateMissing(CopyError):
    """No page of the templates database has the name that a campaign asks for."""


class TemplateEmpty(CopyError):
    """The template's subject or body is empty."""


class TemplateDuplicated(CopyError):
    """More than one page has this name, so which one is meant is not known."""


class TemplateBroken(CopyError):
    """The template cannot be rendered: its syntax, or a variable that is not known for this contact."""


class MailTooLarge(CopyError):
    """The rendered HTML is longer than mail clients show (Gmail clips at about 102 KB)."""


class ServiceError(TidingsError):
    """An outside service failed. `service` names it, `status` is its HTTP status where there was one."""

    def __init__(self, service: str, message: str, *, status: int | None = None, code: str = "") -> None:
        self.service = service
        self.status = status
        self.code = code
        # What a service or its library says may quote an address, or a key that it found odd.
        self.detail = redact(message)
        label = f"{service}: {status} {code}".rstrip() if status else service
        super().__init__(f"{label}: {self.detail}")

    def __reduce__(self) -> tuple[object, ...]:
        # Prefect pickles exceptions between processes; keyword-only arguments need this to survive it.
        return (_rebuild, (type(self), self.service, self.detail, self.status, self.code))


class Refused(ServiceError):
    """The service will say no again. `scope` tells who is at fault: this message, or our set-up."""

    #: True when the refusal concerns one message (a bad address) rather than the account or its settings.
    concerns_message = False


class MessageRefused(Refused):
    """The service refuses this request's content; other messages may pass."""

    concerns_message = True


class KeyReused(Refused):
    """The idempotency key is known with other content, so the first content may have been sent."""


class RetryLater(ServiceError):
    """The service did nothing and asks to be tried again after `retry_after` seconds."""

    retryable = True

    def __init__(
        self,
        service: str,
        message: str,
        *,
        status: int | None = None,
        code: str = "",
        retry_after: float = 1.0,
    ) -> None:
        super().__init__(service, message, status=status, code=code)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return (
            _rebuild,
            (
                type(self),
                self.service,
                self.detail,
                self.status,
                self.code,
                {"retry_after": self.retry_after},
            ),
        )


class QuotaExhausted(RetryLater):
    """The account's daily or monthly quota is used up. `retry_after` is hours, not seconds."""


class OutcomeUnknown(ServiceError):
    """No usable answer: the work may have been done. Only a repeat with the same key is safe."""

    retryable = True


def _rebuild(
    kind: type[ServiceError],
    service: str,
    message: str,
    status: int | None,
    code: str,
    extra: dict[str, float] | None = None,
) -> ServiceError:
    return kind(service, message, status=status, code=code, **(extra or {}))
