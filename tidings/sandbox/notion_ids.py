"""Notion's identifiers: uuids dashed or not, and short property ids that need percent-encoding."""

import random
import re
import uuid
from collections.abc import Collection
from urllib.parse import quote

from .notion_errors import refused

NIL = "00000000-0000-0000-0000-000000000000"
#: the variant bits are checked by the live API; the nil uuid passes and is then not found
UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}")
PROPERTY_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
PROPERTY_SIGNS = ":;<>=?@[\\]^_`{|}~"


def as_uuid(text: object) -> str | None:
    """The dashed lower-case form, or None when it is not a uuid Notion takes."""
    lower = str(text).lower()
    if lower.replace("-", "") == NIL.replace("-", ""):
        return NIL
    return str(uuid.UUID(lower)) if UUID.fullmatch(lower) else None


def path_id(name: str, text: str) -> str:
    found = as_uuid(text)
    if found is None:
        raise refused(f'path failed validation: path.{name} should be a valid uuid, instead was `"{text}"`.')
    return found


def body_id(where: str, text: object) -> str:
    found = as_uuid(text)
    if found is None:
        raise refused(f'body failed validation: {where} should be a valid uuid, instead was `"{text}"`.')
    return found


def new_property_id(taken: Collection[str]) -> str:
    """Four signs, one of them such that clients meet percent-encoding, as in `%7Ct%5C%3C`."""
    while True:
        letters = [random.choice(PROPERTY_LETTERS) for _ in range(3)]  # noqa: S311
        letters.insert(random.randrange(4), random.choice(PROPERTY_SIGNS))  # noqa: S311
        made = "".join(letters)
        if made not in taken:
            return made


def encoded(property_id: str) -> str:
    return quote(property_id, safe="")
