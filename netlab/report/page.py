"""A page in one HTML file, and the pieces that pages are made of. Pure.

The file needs nothing but itself: styles and the few lines of script are in it, and its Content-Security-Policy names
them by their hashes and forbids everything else. The style of all pages is `report.css`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib.resources import files

from netlab.report.markup import Markup, tag

_WIDEST_STEP = 1600
"""The widest picture that `report.css` tells apart."""


def document(title: str, kicker: str, sections: Iterable[Markup], script: str = "") -> str:
    """The whole file. The first section holds the element with the id `result`; script is a file of this package."""
    style = _resource("report.css")
    allowed = f"style-src {_hash(style)}"
    if script:
        allowed += f"; script-src {_hash(_resource(script))}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        tag("a", "Skip to the result", class_="skip", href="#result"),
        tag("header", tag("p", kicker, class_="kicker")),
        tag("main", *sections),
        tag("footer", tag("p", "Made by netlab. This file loads nothing from anywhere.")),
        *([tag("script", Markup(_resource(script)))] if script else []),
    )
    return f'<!doctype html>\n<html lang="en">{head}\n{body}</html>\n'


def section(name: str, heading: str, *children: Markup) -> Markup:
    """A part of the page under its heading, which has the id `name`."""
    return tag("section", tag("h2", heading, id=name), *children, aria_labelledby=name)


def folded(name: str, heading: str, *children: Markup, is_open: bool = False) -> Markup:
    """A part of the page that its heading folds and unfolds."""
    body = tag("details", tag("summary", tag("h2", heading, id=name)), *children, open=is_open)
    return tag("section", body, class_="folded", aria_labelledby=name)


def figure(label: str, picture: Markup, width: float) -> Markup:
    """A picture of that width in a box of its own, which scrolls where it is wider than the page, and says so then.

    The style knows of widths in steps of 100: of one in between it is said a little early.
    """
    step = min(-(-int(width) // 100) * 100, _WIDEST_STEP)
    cue = tag("p", "Wider than the screen: scroll sideways →", class_=f"cue w{step}")
    return tag(
        "div",
        cue,
        tag("figure", picture, class_="figure", tabindex=0, role="group", aria_label=label),
        class_="scrolls",
    )


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table; on a narrow screen each cell says its column's name itself."""
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    body = [
        tag(
            "tr",
            *(
                tag("td", cell, data_name=name, class_=None if cell else "empty")
                for name, cell in zip(names, row, strict=True)
            ),
        )
        for row in rows
    ]
    return tag("div", tag("table", head, tag("tbody", *body)), class_="table")


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Names and what they stand for."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs))


def bullets(items: Iterable[str]) -> Markup:
    """A list without an order."""
    return tag("ul", *(tag("li", item) for item in items))


def code(source: str) -> Markup:
    """Lines to copy."""
    return tag("pre", tag("code", source), tabindex=0)


def _resource(name: str) -> str:
    return files("netlab.report").joinpath(name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
