"""From a template's words and a contact's values to a mail, strictly: what is not known is an error.

Pure. The engine is sandboxed and the grammar narrow: variables, `default("…")`, and `{% if … %}`.
"""

from __future__ import annotations

import html as html_module
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

import css_inline
from inscriptis import get_text
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig
from jinja2 import StrictUndefined, TemplateError, Undefined, nodes, pass_context
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
#: What stands for a contact's values while the mail around them is made: nobody can have written it.
_MARK = f"v{secrets.token_hex(8)}x"
_MARKED = re.compile(rf"{_MARK}(\d+)x")
#: Values that the look of the mail depends on.
_STYLING = re.compile(
    rf"\b(?:class|id|style)\s*=\s*(?:\"[^\"]*{_MARK}|'[^']*{_MARK}|[^\s\"'>]*{_MARK})|<style(?:(?!</style).)*{_MARK}",
    re.DOTALL | re.IGNORECASE,
)
#: Where the text part is laid out otherwise with longer values, or with breaks in them; and what a table is made of.
_SHAPED = re.compile(
    r"<pre[\s>]|white-space|align|colspan|rowspan|<table(?:(?!</table).)*<table", re.DOTALL | re.IGNORECASE
)
_TABLE, _ROW, _CELL = (re.compile(rf"<{tag}[\s>]", re.IGNORECASE) for tag in ("table", "tr", "t[dh]"))
#: A footer for mails that are only tried.
_NOBODY = (("sender", ""), ("postal_address", ""), ("unsubscribe_url", ""))
#: The marked values of the mail that is being made.
_marked: ContextVar[list[str]] = ContextVar("marked")


@pass_context  # or the engine would ask once and for all, when it compiles
def _mark(_: Any, value: Any) -> Any:
    """Put a mark in the place of a value. What is blank, or begins or ends so, is laid out otherwise, and stays."""
    if isinstance(value, Undefined) or not (text := str(value)) or text[0].isspace() or text[-1].isspace():
        return value
    values = _marked.get()
    values.append(text)
    return f"{_MARK}{len(values) - 1}x"


def _environment(*, autoescape: bool, finalize: Callable[..., Any] | None = None) -> ImmutableSandboxedEnvironment:
    env = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=autoescape, finalize=finalize)
    env.globals.clear()
    return env


_HTML = _environment(autoescape=True, finalize=_mark)
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
    body, marked = _body(template, context)
    if not subject or not body.strip():
        part = "subject" if not subject else "body"
        raise TemplateEmpty(f"Template {template.name!r} has an empty {part}. Fill it in in Notion, then replay.")
    with _readable_css(template):
        document, text = _laid_out(body, marked, subject, footer)
    size = len(document.encode())
    if size > MAX_HTML_BYTES:
        raise MailTooLarge(
            f"Template {template.name!r} renders to {size // 1024} KB of HTML; mail clients clip above "
            f"{MAX_HTML_BYTES // 1024} KB and hide the unsubscribe link. Shorten it in Notion, then replay."
        )
    return Mail(subject=subject, html=document, text=text)


def check(template: Template, values: Mapping[str, Any]) -> None:
    """Raises what `render` would raise for these values, at a fraction of its cost: its text part is not made."""
    context = known(values)
    subject = one_line(_fill(template, "subject", template.subject, _PLAIN, context))
    marked, shown = _body(template, context)
    body = _filled(marked, shown, _escaped)
    with _readable_css(template):
        _layout(marked, "", _NOBODY)
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


@contextmanager
def _readable_css(template: Template) -> Iterator[None]:
    """A style that cannot be read is the template's fault, and no other's."""
    try:
        yield
    except css_inline.InlineError as error:
        raise TemplateBroken(_broken(template.name, "body", f"its CSS cannot be read: {error}")) from error


def _body(template: Template, context: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The body with marks where values stand, and the values."""
    values: list[str] = []
    token = _marked.set(values)
    try:
        return _fill(template, "body", template.body, _HTML, context), values
    finally:
        _marked.reset(token)


def _filled(marked: str, values: Sequence[str], shown: Callable[[str], str]) -> str:
    return _MARKED.sub(lambda match: shown(values[int(match[1])]), marked)


def _escaped(value: str) -> str:
    """As the engine does it: also fit for attributes in either kind of quotes."""
    return str(_HTML.filters["escape"](value))


def _in_words(value: str) -> str:
    """As inscriptis does it: breaks and runs of blanks are one blank."""
    return re.sub(r"\s+", " ", value)


def _laid_out(body: str, values: Sequence[str], subject: str, footer: Mapping[str, str]) -> tuple[str, str]:
    """HTML and text. Mails whose words differ in nothing but the values are laid out once, and filled in each."""
    own = {**footer, "unsubscribe_url": f"{_MARK}{len(values)}x"}
    html = _layout(body, f"{_MARK}{len(values) + 1}x", tuple(own.items()))
    text = _text_layout(body, tuple(own.items()))
    everything = [*values, footer["unsubscribe_url"], subject]
    plain = "" if html and text else _filled(body, values, _escaped)
    return (
        _filled(html, everything, _escaped) if html else _INLINER.inline(_wrap(plain, subject, footer)),
        _filled(text, everything, _in_words) if text else _text(plain, footer),
    )


@lru_cache(maxsize=256)
def _layout(body: str, subject: str, footer: tuple[tuple[str, str], ...]) -> str | None:
    """The HTML with its marks; None for what cannot be laid out without the values."""
    document = _wrap(body, subject, dict(footer))
    inlined = _INLINER.inline(document)
    kept = sorted(_MARKED.findall(inlined)) == sorted(_MARKED.findall(document)) and not _STYLING.search(body)
    return inlined if kept else None


@lru_cache(maxsize=256)
def _text_layout(body: str, footer: tuple[tuple[str, str], ...]) -> str | None:
    """The text part with its marks; None for what cannot be laid out without the values."""
    return None if _shapes(body) else _text(body, dict(footer))


def _shapes(body: str) -> bool:
    """Whether the text part's layout depends on values: all but those in the last cells of plain tables may move a
    cell that stands to the right of them."""
    if _SHAPED.search(body):
        return True
    rows = [_CELL.split(row)[1:] for table in _TABLE.split(body)[1:] for row in _ROW.split(table)[1:]]
    widest = max(map(len, rows), default=0)
    return any(_MARK in cell for row in rows for place, cell in enumerate(row, start=1) if place < widest)


def _fill(
    template: Template, part: str, source: str, env: ImmutableSandboxedEnvironment, context: Mapping[str, Any]
) -> str:
    tree = _parse(template.name, part, source, env)
    try:
        text: str = _compiled(tree, env).render(context)
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
def _compiled(tree: nodes.Template, env: ImmutableSandboxedEnvironment) -> Any:
    return env.from_string(tree)


def _straighten(source: str) -> str:
    """Undo, inside tags, what editors do to what authors type: curly quotes, hard spaces, HTML entities."""
    return _TAG.sub(lambda m: html_module.unescape(m[0]).translate(_STRAIGHT), source)


def _parse(name: str, part: str, source: str, env: ImmutableSandboxedEnvironment) -> nodes.Template:
    tree = _parsed(source, env)
    if isinstance(tree, str):
        raise TemplateBroken(_broken(name, part, tree))
    return tree


@lru_cache(maxsize=512)
def _parsed(source: str, env: ImmutableSandboxedEnvironment) -> nodes.Template | str:
    """What the author wrote, or what is wrong with it."""
    try:
        tree = env.parse(_straighten(source))
    except TemplateError as error:
        return str(error)
    return next((wrong for node in tree.find_all(nodes.Node) if (wrong := _not_allowed(node))), tree)


def _not_allowed(node: nodes.Node) -> str | None:
    if not isinstance(node, _ALLOWED):
        return f"{type(node).__name__.lower()} (line {node.lineno}) is not allowed in mails"
    if isinstance(node, nodes.Filter) and node.name not in _ALLOWED_FILTERS:
        return f"the filter {node.name!r} is not one of {', '.join(sorted(_ALLOWED_FILTERS))}"
    if "{{" in (words := _author_words(node)) or "{%" in words:
        return "a placeholder would be left in the mail as it stands"
    return None


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
