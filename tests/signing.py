"""Sign webhooks the way each service does, written from its documentation and not from the product's code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable

#: What the tests' settings hold: the secret in use, and the one that is being replaced.
SECRETS = {
    "STANDARD_WEBHOOK_SECRETS": ("whsec_c3RhbmRhcmQtd2ViaG9va3M=", "whsec_dGhlLW9uZS1iZWZvcmUtdGhpcw=="),
    "CALENDLY_SIGNING_KEYS": ("calendly-key", "calendly-key-before"),
    "CALCOM_WEBHOOK_SECRETS": ("calcom-secret", "calcom-secret-before"),
    "STRIPE_WEBHOOK_SECRETS": ("whsec_stripe", "whsec_stripe_before"),
    "DOCUSIGN_HMAC_KEYS": ("docusign-key", "docusign-key-before"),
}


def environment() -> dict[str, str]:
    return {name: ", ".join(secrets) for name, secrets in SECRETS.items()}


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _timed(header: str) -> Callable[[bytes, str, float], dict[str, str]]:
    def sign(raw: bytes, secret: str, at: float) -> dict[str, str]:
        digest = _hmac(secret.encode(), f"{int(at)}.".encode() + raw).hex()
        return {header: f"t={int(at)},v1={digest}"}

    return sign


def _calcom(raw: bytes, secret: str, at: float) -> dict[str, str]:
    return {"X-Cal-Signature-256": _hmac(secret.encode(), raw).hex()}


def _docusign(raw: bytes, secret: str, at: float) -> dict[str, str]:
    """As an account with three keys does, ours being the last."""
    right = base64.b64encode(_hmac(secret.encode(), raw)).decode()
    other = base64.b64encode(_hmac(b"another key", raw)).decode()
    return {"X-DocuSign-Signature-1": other, "X-DocuSign-Signature-2": other, "X-DocuSign-Signature-3": right}


def _standard(raw: bytes, secret: str, at: float) -> dict[str, str]:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    own = f"msg_{hashlib.sha256(raw).hexdigest()[:16]}"
    digest = base64.b64encode(_hmac(key, f"{own}.{int(at)}.".encode() + raw)).decode()
    signatures = f"v1,{base64.b64encode(bytes(32)).decode()} v1,{digest}"
    return {"webhook-id": own, "webhook-timestamp": str(int(at)), "webhook-signature": signatures}


SIGNERS: dict[str, Callable[[bytes, str, float], dict[str, str]]] = {
    "STANDARD_WEBHOOK_SECRETS": _standard,
    "CALENDLY_SIGNING_KEYS": _timed("Calendly-Webhook-Signature"),
    "CALCOM_WEBHOOK_SECRETS": _calcom,
    "STRIPE_WEBHOOK_SECRETS": _timed("Stripe-Signature"),
    "DOCUSIGN_HMAC_KEYS": _docusign,
}
#: Schemes whose signature holds no time.
TIMELESS = ("CALCOM_WEBHOOK_SECRETS", "DOCUSIGN_HMAC_KEYS")


def signed(name: str, raw: bytes, *, which: int = 0, secret: str | None = None, ago: float = 0.0) -> dict[str, str]:
    """The headers of a webhook that was signed this many seconds ago with a secret of this setting."""
    headers = SIGNERS[name](raw, secret or SECRETS[name][which], time.time() - ago)
    return {"content-type": "application/json", **headers}
