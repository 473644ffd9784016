"""Rendering: strict, escaped, and nothing invented."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from css_inline import InlineError
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tidings import render as rendering
from tidings.errors import CopyError, MailTooLarge, TemplateBroken, TemplateEmpty
from tidings.model import Mail, Template
from tidings.render import check, known, one_line, render, variables_of

FOOTER = {
    "sender": "Tidings & Co",
    "postal_address": "1 Example Street\nToronto",
    "unsubscribe_url": "https://t.tidings.test/unsubscribe/abc?a=1&b=2",
}
NASTY = [r"\1", r"\g<0>", "{{7*7}}", "{% raw %}", "<script>alert(1)</script>", '" onclick="x', "</body>", "%s"]


def template(body: str = "<p>Hello</p>", subject: str = "Hello") -> Template:
    return Template("spring_1", subject, body, "page", "")


def rendered(body: str = "<p>Hello</p>", subject: str = "Hello", **values: Any) -> Mail:
    return render(template(body, subject), values, footer=FOOTER)


def body_of(mail: Mail) -> str:
    """What stands between the layout's sheet and the footer."""
    return mail.html.split('class="sheet"')[1].split(">", 1)[1].split('class="tidings-footer"')[0]


# -- F11, F19: nothing unknown goes out, nothing is made up --------------------------------------------------


@pytest.mark.parametrize("use", [render, check])
@pytest.mark.parametrize(
    "source",
    [
        "{{ Score1 }}",
        "{{Score1}}",
        "{{ Score1 | upper }}",
        "{% if Score1 > 3 %}x{% endif %}",
        '{{ "a" if Score1 else "b" }}',
    ],
)
def test_f11_an_undefined_variable__is_an_error_that_names_template_variable_and_cure(use: Any, source: str) -> None:
    more = {"footer": FOOTER} if use is render else {}

    with pytest.raises(TemplateBroken) as told:
        use(template(f"<p>{source}</p>"), {"first_name": "Ada"}, **more)

    assert "'spring_1'" in str(told.value)
    assert "'Score1' is undefined" in str(told.value)
    assert '{{ Score1 | default("…") }}' in str(told.value)
    assert "then replay" in str(told.value)


def test_f11_an_undefined_variable_in_the_subject__is_told_as_such() -> None:
    with pytest.raises(TemplateBroken, match=r"\(subject\): 'Score1' is undefined"):
        rendered(subject="{{ Score1 }} points")


@pytest.mark.parametrize("value", [None, "", "  ", "\n"])
def test_f19_a_blank_value__is_unknown(value: str | None) -> None:
    with pytest.raises(TemplateBroken, match="'first_name' is undefined"):
        rendered("<p>{{ first_name }}</p>", first_name=value)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_f19_a_blank_value__takes_the_default_that_the_template_declares(value: str | None) -> None:
    assert "Hello there" in rendered('<p>Hello {{ first_name | default("there") }}</p>', first_name=value).text


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (0.0, "0.0"), (False, "False")])
def test_f19_zero__is_a_value_and_no_blank(value: Any, shown: str) -> None:
    assert f"[{shown}]" in rendered("<p>[{{ red_systems }}]</p>", red_systems=value).text
    assert known({"n": value}) == {"n": value}


@pytest.mark.parametrize(
    "left",
    [
        "{% raw %}{{ Score1 }}{% endraw %}",
        '{{ "{{ Score1 }}" }}',
        '{{ first_name | default("{{ name }}") }}',
        "&#123;&#123;Score1&#125;&#125;",
        "&lbrace;&lbrace;Score1}}",
    ],
)
@pytest.mark.parametrize("part", ["body", "subject"])
def test_f11_a_placeholder_that_would_be_left__is_refused(left: str, part: str) -> None:
    with pytest.raises(TemplateBroken, match="spring_1"):
        rendered(**{part: f"Hello {left}"})


@pytest.mark.parametrize(
    "source", ["{{ first_name", "{{ first_name }", "{{{first_name}}}", "{% if x %}", "{% else %}", "{{ }}"]
)
def test_f11_half_a_placeholder__is_refused(source: str) -> None:
    with pytest.raises(TemplateBroken, match="spring_1"):
        rendered(f"<p>{source}</p>", first_name="Ada", x=1)


def test_f11_a_full_mail__has_no_braces_left() -> None:
    mail = rendered("<p>{{a}} {{ b }}</p>", "{{a}}", a="x", b="y")

    assert "{{" not in mail.subject + mail.html.split("</style>")[1] + mail.text


# -- F17: values are words, never code -----------------------------------------------------------------------


@pytest.mark.parametrize("nasty", NASTY)
def test_f17_a_value__comes_out_literally_in_every_part(nasty: str) -> None:
    mail = rendered("<p>For {{ business_name }}.</p>", "For {{ business_name }}", business_name=nasty)

    assert mail.subject == f"For {nasty}"
    assert f"For {nasty}." in mail.text


@pytest.mark.parametrize(
    "nasty", ["<script>alert(1)</script>", "<img src=x onerror=y>", "</div></body>", "a < b & c", "&amp;"]
)
def test_f17_a_value__is_escaped_in_html(nasty: str) -> None:
    html = body_of(rendered("<p>{{ business_name }}</p>", business_name=nasty))

    assert f">{nasty}<" not in html
    assert nasty.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in html


def test_f17_a_quote__cannot_leave_its_attribute() -> None:
    html = rendered('<p><a href="{{ link }}">x</a></p>', link='https://x.test/" onclick="steal()').html

    assert ' onclick="' not in html


def test_f17_a_whole_document__takes_values_with_backslashes() -> None:
    mail = rendered("<html><body><p>{{ business_name }}</p></body></html>", business_name=r"\1 \g<0>")

    assert r"\1 \g&lt;0&gt;" in mail.html
    assert "Unsubscribe" in mail.html


def test_f17_markup_in_a_value__does_not_pass_as_the_layouts_own_marks() -> None:
    mail = rendered("<p>{{ name }}</p>", "{{ name }}", name="<!-- footer --><!-- body -->")

    assert mail.html.count("Unsubscribe") == 1


@pytest.mark.parametrize("breaker", ["\r\n", "\n", "\r", "\x00", "\x0b", "\x85", "\u2028", "\u2029"])
def test_f17_line_breaks__never_reach_a_subject(breaker: str) -> None:
    subject = rendered(subject="Hi {{ name }}", name=f"Ada{breaker}Bcc: all@x.test").subject

    assert subject == "Hi Ada Bcc: all@x.test"
    assert one_line(f" a{breaker}b ") == "a b"


# -- the engine is narrow ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "{{ first_name.__class__ }}",
        "{{ first_name['x'] }}",
        "{{ range(10) }}",
        "{% for x in first_name %}{{ x }}{% endfor %}",
        "{% set x = 1 %}{{ x }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% macro m() %}{% endmacro %}",
        "{{ first_name | attr('x') }}",
        "{{ first_name | safe }}",
        "{{ 2 ** 99 }}",
        "{{ 'x' * 9999999 }}",
        "{{ first_name | nosuchfilter }}",
        "{% if first_name is nosuchtest %}x{% endif %}",
        "{{ 1 if 5 is divisibleby 0 else 2 }}",
        "{% if first_name > 3 %}x{% endif %}",
        "{{ first_name | round }}",
    ],
)
def test_what_is_not_in_the_grammar__is_refused_with_the_templates_name(source: str) -> None:
    with pytest.raises(TemplateBroken, match="'spring_1' cannot be rendered"):
        rendered(f"<p>{source}</p>", first_name="Ada")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("{{ first_name | upper }}", "ADA"),
        ("{% if a is defined %}yes{% else %}no{% endif %}", "no"),
        ("{% if first_name is defined and first_name == 'Ada' %}yes{% endif %}", "yes"),
        ("{{ n | round | int }}", "4"),
        ("{{ a | default(“friend”) }}", "friend"),
        ("{{ a | default(&quot;friend&quot;) }}", "friend"),
        ("{{\u00a0first_name\u00a0}}", "Ada"),
        ("{# a note #}x", "x"),
    ],
)
def test_what_authors_write__works_as_meant(source: str, shown: str) -> None:
    assert f"[{shown}]" in rendered(f"<p>[{source}]</p>", first_name="Ada", n=3.6).text


def test_variables_of__lists_what_subject_and_body_name() -> None:
    found = variables_of(template("{{ a | default('x') }}{% if b is defined %}{{ c }}{% endif %}", "{{ d }}"))

    assert found == {"a", "b", "c", "d"}


# -- F2: empty copy; size; footer ----------------------------------------------------------------------------


@pytest.mark.parametrize("use", [render, check])
@pytest.mark.parametrize(
    ("subject", "body", "part"),
    [("", "<p>x</p>", "subject"), (" \n", "<p>x</p>", "subject"), ("Hi", "", "body"), ("Hi", " \n ", "body"),
     ("{{ a | default('') }}", "<p>x</p>", "subject"), ("Hi", "{% if a is defined %}x{% endif %}", "body")],
)  # fmt: skip
def test_f2_copy_that_says_nothing__is_refused(use: Any, subject: str, body: str, part: str) -> None:
    more = {"footer": FOOTER} if use is render else {}

    with pytest.raises(TemplateEmpty, match=f"'spring_1' has an empty {part}"):
        use(template(body, subject), {}, **more)


@pytest.mark.parametrize("use", [render, check])
def test_html_that_gmail_would_clip__is_refused(use: Any) -> None:
    more = {"footer": FOOTER} if use is render else {}

    with pytest.raises(MailTooLarge, match=r"'spring_1' renders to 9[0-9] KB"):
        use(template("<p>" + "é" * 48_000 + "</p>"), {}, **more)


def test_html_below_the_limit__goes() -> None:
    assert len(rendered("<p>" + "x" * 90_000 + "</p>").html) > 90_000


def test_check__never_passes_what_render_refuses_for_its_size() -> None:
    styled = template('<p class="quiet">x</p>' * 1500)

    with pytest.raises(CopyError):
        render(styled, {}, footer=FOOTER)
    with pytest.raises(CopyError):
        check(styled, {})


@pytest.mark.parametrize(
    "body", ["<p>x</p>", "<html><body><p>x</p></body></html>", "<HTML><BODY><p>x</p></BODY></HTML>", "<html><p>x"]
)
def test_the_footer__is_in_every_mail_once(body: str) -> None:
    mail = rendered(body)

    assert mail.html.count("Unsubscribe</a>") == 1
    assert "https://t.tidings.test/unsubscribe/abc?a=1&amp;b=2" in mail.html
    assert "Tidings &amp; Co" in mail.html
    assert "1 Example Street, Toronto" in mail.html
    assert "Unsubscribe: https://t.tidings.test/unsubscribe/abc?a=1&b=2" in mail.text


def test_css__is_inlined() -> None:
    assert (
        "background"
        in rendered('<p><a class="button" href="https://x.test">Go</a></p>').html.split('class="button"')[1][:300]
    )


def test_the_text_part__shows_links_in_full() -> None:
    text = rendered('<h2>Title</h2><p>See <a href="https://x.test/a">this</a></p><ul><li>one</li></ul>').text

    assert "https://x.test/a" in text
    assert "Title" in text
    assert "* one" in text


def test_a_value_that_looks_like_a_tag__is_not_rendered_again() -> None:
    mail = rendered("<p>{{ a }}</p>", a="{{ b }}", b="secret")

    assert "secret" not in mail.html + mail.text
    assert "{{ b }}" in mail.text


# -- Mails of one template are laid out once -------------------------------------------------------------------

BODIES = {
    "words": "<p>Hello {{ a }},</p><p>{{ b }} and {{a}}</p>",
    "glued": "<p>x{{ a }}y<b>{{ b }}</b>{{ a }}</p>",
    "link": '<p><a class="button" href="{{ a }}">{{ b }}</a></p>',
    "branches": "{% if a == b %}<p>same</p>{% else %}<p>{{ a }}</p>{% endif %}<ul><li>{{ b }}</li></ul>",
    "empty": '<p>{{ c | default("") }}</p><p>{{ a }}</p>',
    "last-cells": '<table class="facts"><tr><th>1</th><td>{{ a }}</td></tr><tr><th>2</th><td>{{ b }}</td></tr></table>',
    "first-cells": "<table><tr><td>{{ a }}</td><td>1</td></tr><tr><td>{{ b }}</td><td>2</td></tr></table>",
    "short-row": "<table><tr><td>{{ a }}</td></tr><tr><td>x</td><td>{{ b }}</td></tr></table>",
    "spanning": "<table><tr><td colspan=2>{{ a }}</td></tr><tr><td>x</td><td>y</td></tr></table>",
    "aligned": "<table><tr><td>x</td><td align=right>{{ a }}</td></tr><tr><td>y</td><td>{{ b }}</td></tr></table>",
    "nested": "<table><tr><td>x<table><tr><td>{{ a }}</td></tr></table></td><td>{{ b }}</td></tr></table>",
    "quotes-and-cells": "<table><tr><td><a href='{{ a }}'>go</a></td><td>{{ b }}</td></tr></table>",
    "breaks": "<pre>{{ a }}\n{{ b }}</pre>",
    "white-space": "<p style='white-space: pre'>{{ a }}</p><p>{{ b }}</p>",
    "class": "<p class=\"{{ a }}\"><a href='{{ b }}'>go</a></p>",
    "style": "<p style='color: {{ a }}'>{{ b }}</p>",
    "style-with-quotes": """<p style="font-family: 'Arial'; color: {{ a }}">{{ b }}</p>""",
    "title": "<html><head><title>{{ a }}</title></head><body><p>{{ b }}</p></body></html>",
    "comment": "<!-- {{ a }} --><p>{{ b }}</p>",
}
ODD = [
    "button",
    "red",
    "quiet",
    "a  b",
    "a\n b",
    " a",
    "a ",
    "\N{NO-BREAK SPACE}a",
    "0",
    "#1",
    "o'neil",
    "' onclick='x",
]
VALUES = st.one_of(
    st.sampled_from([*NASTY, *ODD]),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12).filter(str.strip),
)


def whole(body: str, **values: str) -> tuple[str, str]:
    """HTML and text of a mail that is laid out with its values, as the engine itself puts them in."""
    filled = ImmutableSandboxedEnvironment(autoescape=True).from_string(body).render(values)
    return rendering._INLINER.inline(rendering._wrap(filled, "Hello", FOOTER)), rendering._text(filled, FOOTER)


class Read(HTMLParser):
    """What a reader's program makes of a mail: its elements with their attributes, and its words."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: list[Any] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, sorted(attrs)))

    def handle_data(self, data: str) -> None:
        self.found.append(data)

    def handle_comment(self, data: str) -> None:
        self.found.append(("comment", data))


@pytest.mark.parametrize("use", [render, check])
def test_a_style_that_cannot_be_read__is_refused_with_the_templates_name(use: Any) -> None:
    more = {"footer": FOOTER} if use is render else {}

    with pytest.raises(TemplateBroken, match=r"'spring_1' cannot be rendered .*its CSS cannot be read"):
        use(template("<p style='color: ;0'>x</p>"), {}, **more)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@given(a=VALUES, b=VALUES)
def test_a_mail_that_is_filled_in__is_the_mail_that_is_laid_out_with_its_values(body: str, a: str, b: str) -> None:
    try:
        document, text = whole(body, a=a, b=b)
    except InlineError:  # a value that makes a style which cannot be read
        with pytest.raises(TemplateBroken):
            rendered(body, a=a, b=b)
        return
    filled = rendered(body, a=a, b=b)

    assert filled.text == text
    assert Read(filled.html).found == Read(document).found
    assert rendering._MARK not in filled.html + filled.text + filled.subject


def test_a_value_in_an_attribute_without_quotes__stays_in_it() -> None:
    html = body_of(rendered("<p><a href={{ a }}>go</a></p>", a="https://x.test onclick=steal()"))

    assert 'href="https://x.test onclick=steal()"' in html


def test_mails_of_one_template__are_laid_out_once() -> None:
    body = "<p>Once for {{ a }}</p>"
    rendered(body, "{{ a }}", a="Ada")
    before = rendering._layout.cache_info().misses

    assert "Once for Bo" in rendered(body, "{{ a }}", a="Bo").text
    assert rendering._layout.cache_info().misses == before
