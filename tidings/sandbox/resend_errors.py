"""Resend's refusals, with the texts it really sends."""

from .wire import Reply

#: HTTP status → the name Resend gives it when nothing more is known (errors page; resend-rust, Aug 2026)
USUAL_NAMES = {
    400: "validation_error",
    401: "missing_api_key",
    403: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    409: "concurrent_idempotent_requests",
    422: "validation_error",
    429: "rate_limit_exceeded",
    451: "security_error",
    500: "internal_server_error",
    503: "service_unavailable",
}

ADDRESS_FORMAT = "The email address needs to follow the `email@example.com` or `Name <email@example.com>` format."


class ResendRefused(Exception):
    """Resend says no."""

    def __init__(self, status: int, name: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.message = message
        self.headers = headers or {}

    def reply(self) -> Reply:
        body = {"statusCode": self.status, "message": self.message, "name": self.name}
        return Reply(self.status, body, self.headers)


def missing(field: str) -> ResendRefused:
    return ResendRefused(422, "missing_required_field", f"Missing {field} field.")


def invalid(message: str) -> ResendRefused:
    return ResendRefused(422, "validation_error", message)


def not_found(thing: str) -> ResendRefused:
    return ResendRefused(404, "not_found", f"{thing} not found")


def too_many(rate: int, retry_after: int) -> ResendRefused:
    text = (
        f"Too many requests. You can only make {rate} requests per second. See rate limit response headers "
        "for more information. Or contact support to increase rate limit."
    )
    return ResendRefused(429, "rate_limit_exceeded", text, {"retry-after": str(retry_after)})


def unverified(domain: str) -> ResendRefused:
    text = f"The {domain} domain is not verified. Please, add and verify your domain on https://resend.com/domains"
    return ResendRefused(403, "validation_error", text)


def testing_only(owner: str) -> ResendRefused:
    text = (
        f"You can only send testing emails to your own email address ({owner}). To send emails to other "
        "recipients, please verify a domain at resend.com/domains, and change the `from` address to an email "
        "using this domain."
    )
    return ResendRefused(403, "validation_error", text)
