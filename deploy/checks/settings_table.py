"""docs/settings.md, made from the settings in the code."""

from __future__ import annotations

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from tidings.settings import ROOT, PrefectAccess, Settings, block_of

FILE = ROOT / "docs" / "settings.md"
MAKE = "deploy/check settings --write"
HEAD = f"""# Settings

Made from `tidings/settings.py` by `{MAKE}`.

A value comes from the environment, else from `.env`, else from the file that `<NAME>_FILE` names, else from the
Prefect Secret block named here. An empty value counts as not set. What is wrong or missing is refused at the start,
all of it at once, each with its name and its cure.

| setting | default | Prefect block | meaning |
|---|---|---|---|
"""

PREFECTS = """
## Prefect's own

How Prefect's API is reached. These are settings of Prefect's, which its worker reads as well: from the environment or
`.env`.

| setting | default | Prefect block | meaning |
|---|---|---|---|
"""


def _row(kind: type[BaseSettings], name: str) -> str:
    field = kind.model_fields[name]
    block = f"`{found}`" if (found := block_of(name)) else ""
    meaning = (field.description or "").replace("|", "\\|").replace("<", "&lt;")
    return f"| `{name.upper()}` | {_default(field.default)} | {block} | {meaning} |\n"


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "**required**"
    if value in (None, ""):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def made() -> str:
    ours = "".join(_row(Settings, name) for name in Settings.model_fields)
    prefects = [name for name in PrefectAccess.model_fields if name not in Settings.model_fields]
    return HEAD + ours + PREFECTS + "".join(_row(PrefectAccess, name) for name in prefects)


def write() -> None:
    FILE.write_text(made(), encoding="utf-8")


def problems() -> list[str]:
    there = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
    return [] if there == made() else [f"{FILE.relative_to(ROOT)} does not fit the code; run: {MAKE}"]
