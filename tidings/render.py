"""From a template's words and a contact's values to a mail, strictly: what is not known is an error.

Pure. The engine is sandboxed and the grammar narrow: variables, `default("…")`, and `{% if … %}`.
"""

from __future__ import annotations

import html as html_module
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import css_inline
from inscriptis import get_text
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig
from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tidings.errors import MailTooLarge, TemplateBroken, TemplateEmpty
from tidings.model import Mail, Template
from tidings.unsubscribe import CONFIRM

#: Gmail clips a message at about 102 KB of HTML and hides the unsubscribe link with the rest (apis.md 4).
MAX_HTML_BYTES = 95 * 1024

LAYOUT = (Path(__file__).parent / "layout.html").read_text(encoding="utf-8")

_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Filter, nodes.If,
    nodes.Test, nodes.Not, nodes.And, nodes.Or, nodes.Compare, nodes.Operand, nodes.CondExpr,
)  # fmt: skip
_ALLOWED_FILTERS = {"default", "d", "upper", "lower", "title", "trim", "round", "int"}
#: Typographic quotes that editors make of straight ones, undone inside tags only.
_STRAIGHT = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "\u00a0": " "})
_TAG = re.compile(r"(\{\{.*?\}\}|\{%.*?%\})", re.DOTALL)


def _environment(*, autoescape: bool) -> ImmutableSandboxedEnvironment:
    env = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=autoescape)
    env.globals.clear()
    return env


_HTML = _environment(autoescape=True)
_PLAIN = _environment(autoescape=False)
_INLINER = css_inline.CSSInliner(load_remote_stylesheets=False, keep_style_tags=True)
_TEXT_CONFIG = ParserConfig(css=CSS_PROFILES["strict"], display_links=True, display_anchors=False)


def one_line(value: str) -> str:
    """The text without line breaks or control characters: fit for a subject or a name in a header."""
    return re.sub(r"[\x00-\x1f\x7f\u2028\u2029\u0085]+", " ", value).strip()


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Only values that say something: None and blank text count as unknown, so that defaults apply."""
    return {
        name: value
        for name, value in values.items()
        if value is not None and not (isinstance(value, str) and not value.strip())
    }


def render(template: Template, values: Mapping[str, Any], *, footer: Mapping[str, str]) -> Mail:
    """The mail, or a TemplateEmpty, TemplateBroken or MailTooLarge that names the template and the cure.

    `footer` holds sender, postal_address and unsubscribe_url; the product adds it, so no author can forget it.
    """
    context = known(values)
    subject = one_line(_fill(template, "subject", template.subject, _PLAIN, context))
    body = _fill(template, "body", template.body, _HTML, context)
    if not subject or not body.strip():
        part = "subject" if not subject else "body"
        raise TemplateEmpty(f"Template {template.name!r} has an empty {part}. Fill it in in Notion, then replay.")
    document = _INLINER.inline(_wrap(body, subject, footer))
    size = len(document.encode())
    if size > MAX_HTML_BYTES:
        raise MailTooLarge(
            f"Template {template.name!r} renders to {size // 1024} KB of HTML; mail clients clip above "
            f"{MAX_HTML_BYTES // 1024} KB and hide the unsubscribe link. Shorten it in Notion, then replay."
        )
    return Mail(subject=subject, html=document, text=_text(body, footer))


def check(template: Template, values: Mapping[str, Any]) -> None:
    """Raises what `render` would raise for these values, at a fraction of its cost: no CSS is inlined."""
    context = known(values)
    subject = one_line(_fill(template, "subject", template.subject, _PLAIN, context))
    body = _fill(template, "body", template.body, _HTML, context)
    if not subject or not body.strip() or len(body.encode()) > MAX_HTML_BYTES // 4:
        # Only a long body can come near the limit once its CSS is inlined; then the real thing decides.
        render(
            template,
            values,
            footer={"sender": "x" * 80, "postal_address": "x" * 160, "unsubscribe_url": "x" * 300},
        )


def check_asking(template: Template, values: Mapping[str, Any]) -> None:
    """As `check`, for the mail that asks a contact to confirm: without its link nobody could."""
    check(template, {**values, CONFIRM: "https://example.org/confirm/x"})
    if CONFIRM not in variables_of(template):
        raise TemplateBroken(
            f"Template {template.name!r} has no {{{{ {CONFIRM} }}}}, so nobody could confirm. "
            f"Put it into a link in Notion, then replay."
        )


def variables_of(template: Template) -> set[str]:
    """Every variable that the template names, with or without a default."""
    found: set[str] = set()
    for part, source in (("subject", template.subject), ("body", template.body)):
        found |= {n.name for n in _parse(template.name, part, source, _HTML).find_all(nodes.Name)}
    return found


def _fill(
    template: Template, part: str, source: str, env: ImmutableSandboxedEnvironment, context: Mapping[str, Any]
) -> str:
    _parse(template.name, part, source, env)
    try:
        text: str = _compiled(source, env is _HTML).render(context)
    except TemplateError as error:
        raise TemplateBroken(_broken(template.name, part, str(error))) from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise TemplateBroken(_broken(template.name, part, str(error))) from error
    # A value may itself hold braces; only what the author wrote can leave a placeholder, and that was parsed.
    return text


def _broken(name: str, part: str, message: str) -> str:
    hint = ""
    if match := re.search(r"'(\w+)' is undefined", message):
        variable = match[1]
        hint = f' Write {{{{ {variable} | default("…") }}}} to say what stands there when it is not known.'
    return f"Template {name!r} cannot be rendered ({part}): {message}.{hint} Mend it in Notion, then replay."


@lru_cache(maxsize=512)
def _parse_cached(source: str, html: bool) -> nodes.Template:
    return (_HTML if html else _PLAIN).parse(_straighten(source))


@lru_cache(maxsize=512)
def _compiled(source: str, html: bool) -> Any:
    return (_HTML if html else _PLAIN).from_string(_straighten(source))


def _straighten(source: str) -> str:
    """Undo, inside tags, what editors do to what authors type: curly quotes, hard spaces, HTML entities."""
    return _TAG.sub(lambda m: html_module.unescape(m[0]).translate(_STRAIGHT), source)


def _parse(name: str, part: str, source: str, env: ImmutableSandboxedEnvironment) -> nodes.Template:
    try:
        tree = _parse_cached(source, env is _HTML)
    except TemplateError as error:
        raise TemplateBroken(_broken(name, part, str(error))) from error
    for node in tree.find_all(nodes.Node):
        if not isinstance(node, _ALLOWED):
            raise TemplateBroken(
                _broken(name, part, f"{type(node).__name__.lower()} (line {node.lineno}) is not allowed in mails")
            )
        if isinstance(node, nodes.Filter) and node.name not in _ALLOWED_FILTERS:
            raise TemplateBroken(
                _broken(
                    name,
                    part,
                    f"the filter {node.name!r} is not one of {', '.join(sorted(_ALLOWED_FILTERS))}",
                )
            )
        if "{{" in (words := _author_words(node)) or "{%" in words:
            raise TemplateBroken(_broken(name, part, "a placeholder would be left in the mail as it stands"))
    return tree


def _author_words(node: nodes.Node) -> str:
    """What a reader would see of this node: text between tags (raw blocks too), and quoted defaults."""
    words = node.data if isinstance(node, nodes.TemplateData) else getattr(node, "value", "")
    return html_module.unescape(words) if isinstance(words, str) else ""


def _wrap(body: str, subject: str, footer: Mapping[str, str]) -> str:
    """The body inside the layout; a body that is a whole document keeps its own head and gets the footer."""
    foot = _footer_html(footer)
    if re.search(r"<html[\s>]", body, re.IGNORECASE):
        closed = re.subn(r"(?i)</body\s*>", lambda m: foot + m[0], body, count=1)
        return closed[0] if closed[1] else body + foot
    filled = LAYOUT.replace("<!-- subject -->", html_module.escape(subject))
    return filled.replace("<!-- footer -->", foot).replace("<!-- body -->", body)


def _footer_html(footer: Mapping[str, str]) -> str:
    safe = {name: html_module.escape(value) for name, value in footer.items()}
    address = ", ".join(line.strip() for line in safe["postal_address"].splitlines() if line.strip())
    return (
        f'<div class="tidings-footer"><p>{safe["sender"]}<br>{address}</p>'
        f'<p><a href="{safe["unsubscribe_url"]}">Unsubscribe</a></p></div>'
    )


def _text(body: str, footer: Mapping[str, str]) -> str:
    """The text part, made by inscriptis from the same HTML, with the footer's facts in plain words."""
    words = get_text(f"<html><body>{body}</body></html>", _TEXT_CONFIG).strip()
    lines = [line.rstrip() for line in words.splitlines()]
    foot = f"--\n{footer['sender']}\n{footer['postal_address']}\nUnsubscribe: {footer['unsubscribe_url']}\n"
    return "\n".join(lines) + "\n\n" + foot
