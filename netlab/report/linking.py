"""Links from the words of a page to their meanings at its foot. Pure.

A report travels as one file, without docs/glossary.md: so it brings the meanings of the words that it uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

from netlab.report.glossary import TERMS, Term
from netlab.report.markup import Markup, join, tag
from netlab.report.page import section

_OPAQUE = frozenset(
    ("a", "button", "code", "dt", "h1", "h2", "h3", "h4", "pre", "script", "style", "summary", "svg", "th", "title")
)
"""Elements whose text is left as it is: links already, names, headings, code, pictures."""


def linked(sections: Iterable[Markup]) -> list[Markup]:
    """The sections with the first use of each word in each section as a link to its meaning, and the meanings' section
    after them where any word is used."""
    used: set[Term] = set()
    done = [_with_links(each, used) for each in sections]
    return [*done, _meanings([term for term in TERMS if term in used])] if used else done


def _with_links(markup: Markup, used: set[Term]) -> Markup:
    pattern, terms = _spellings()
    seen: set[Term] = set()

    def link(match: re.Match[str]) -> str:
        term = terms[match[0]]
        if term in seen:
            return match[0]
        seen.add(term)
        return tag("a", Markup(match[0]), class_="term", href=f"#{term.anchor}")

    opaque = 0
    parts = []
    for part in re.split("(<[^>]*>)", markup):  # an attribute's > is escaped
        element = re.match("<(/?)([a-z0-9]+)", part)
        if element and element[2] in _OPAQUE:
            opaque += -1 if element[1] else 1
        parts.append(part if element or opaque else pattern.sub(link, part))
    used |= seen
    return Markup("".join(parts))


@cache
def _spellings() -> tuple[re.Pattern[str], dict[str, Term]]:
    """One pattern for every spelling, and whose it is. A word in lower case may begin a sentence, too."""
    terms = {spelling: term for term in TERMS for spelling in (term.name, *term.spellings)}
    terms |= {name[0].upper() + name[1:]: term for name, term in terms.items() if name.islower()}
    longest_first = sorted(terms, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])"), terms


def _meanings(terms: Sequence[Term]) -> Markup:
    rows = [tag("div", tag("dt", term.name, id=term.anchor), tag("dd", *_prose(term.meaning))) for term in terms]
    return tag("div", section("words", "Words", tag("dl", *rows)), class_="glossary")


def _prose(text: str) -> list[Markup]:
    """A meaning with its code between backticks, and its emphasis between stars, as elements."""
    pieces = re.split(r"(`[^`]*`|\*[^*]*\*)", text)
    elements = {"`": "code", "*": "em"}
    return [tag(elements[each[0]], each[1:-1]) if each[:1] in elements else join([each]) for each in pieces]
