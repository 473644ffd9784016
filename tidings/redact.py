"""What never leaves this process in words: the secrets of its settings, and people's addresses.

Log lines, errors and what Prefect is told pass through `redact`. It is the last guard, not the first: nothing is meant
to say a secret or an address anyway, but errors of other libraries quote what they were given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

HIDDEN = "[hidden]"
#: Shorter ones would hide half of every line, and are refused as secrets where that can be known.
SHORTEST = 6

#: An address as it is written, or percent-encoded in a URL. It is looked for from the beginning of a word, and a word
#: has a longest length: anybody can make a log line long, and must not make it slow.
_CHARACTER = r"[^\s@\"'<>()\[\]{},;:/\\?&=%|]"
_ENCODED = r"%(?!40)[0-9A-Fa-f]{2}"
_ADDRESS = re.compile(
    rf"(?<!{_CHARACTER})(?:(?<!%)|(?![0-9A-Fa-f]{{2}}))"
    rf"(?P<first>{_CHARACTER}|{_ENCODED})(?:{_CHARACTER}|{_ENCODED}){{0,300}}"
    r"(?P<at>@|%40)(?P<domain>[\w-]+(?:\.[\w-]+)*\.[^\W\d_][\w-]+)"
)
#: The token of such a link unsubscribes or confirms: who reads it in a log could do so.
_LINK = re.compile(r"(/(?:unsubscribe|confirm)/)[^\s/?\"']+")

_secrets: set[str] = set()
_pattern: re.Pattern[str] | None = None


def hide(secrets: Iterable[str]) -> None:
    """From now on these are hidden, as they are and as they look in a URL."""
    global _pattern
    given = {secret for secret in secrets if len(secret) >= SHORTEST}
    _secrets.update(given, map(quote, given), map(unquote, given))
    longest_first = sorted(_secrets, key=len, reverse=True)
    _pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def redact(text: str) -> str:
    """The text without secrets and the tokens of links in mails, and with addresses masked: `d…@resend.dev`."""
    if _pattern is not None:
        text = _pattern.sub(HIDDEN, text)
    if "/unsubscribe/" in text or "/confirm/" in text:
        text = _LINK.sub(rf"\1{HIDDEN}", text)
    if "@" in text or "%40" in text:
        text = _ADDRESS.sub(r"\g<first>…\g<at>\g<domain>", text)
    return text
