"""Links by which people leave and confirm: opaque, signed, valid for as long as the key is kept."""

from __future__ import annotations

from uuid import UUID

from itsdangerous import BadSignature, URLSafeSerializer

#: The template variable that stands for the link by which a contact confirms (double opt-in).
CONFIRM = "confirm_url"


class Links:
    """Makes and reads unsubscribe links. The address alone says who leaves what (RFC 8058: no cookie, no login)."""

    def __init__(self, *, secret: str, public_url: str, sender: str) -> None:
        self._leave = URLSafeSerializer(secret, salt="unsubscribe")
        # A salt of its own: a link to leave is in every mail, and must not confirm anything.
        self._confirm = URLSafeSerializer(secret, salt="confirm")
        self._base = public_url.rstrip("/")
        self._mailbox = sender.rpartition("<")[2].rstrip("> ").strip()

    def unsubscribe(self, enrolment_id: UUID) -> str:
        """The page's address for the contact of an enrolment."""
        return f"{self._base}/unsubscribe/{self._token(enrolment_id)}"

    def confirm(self, enrolment_id: UUID) -> str:
        """The address of the page on which the contact of an enrolment confirms (double opt-in)."""
        return f"{self._base}/confirm/{_signed(self._confirm, enrolment_id)}"

    def headers(self, enrolment_id: UUID) -> dict[str, str]:
        """The headers that put an unsubscribe button into mail programs."""
        token = self._token(enrolment_id)
        mailto = f"mailto:{self._mailbox}?subject=unsubscribe%20{token}"
        return {
            "List-Unsubscribe": f"<{self._base}/unsubscribe/{token}>, <{mailto}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }

    def read(self, token: str) -> UUID | None:
        """The enrolment of a link, or None when the link was not made by us."""
        return _read(self._leave, token)

    def read_confirmation(self, token: str) -> UUID | None:
        """The enrolment of a link to confirm, or None when the link was not made by us."""
        return _read(self._confirm, token)

    def _token(self, enrolment_id: UUID) -> str:
        return _signed(self._leave, enrolment_id)


def _signed(signer: URLSafeSerializer, enrolment_id: UUID) -> str:
    # Random ids carry no personal data, so the token is opaque although it is only signed.
    signed = signer.dumps(str(enrolment_id))
    return signed if isinstance(signed, str) else signed.decode()


def _read(signer: URLSafeSerializer, token: str) -> UUID | None:
    try:
        return UUID(str(signer.loads(token)))
    except (BadSignature, ValueError):
        return None
