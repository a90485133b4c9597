"""The glossary: one meaning a word, and reports whose words lead to theirs."""

from __future__ import annotations

import re
from collections import Counter

import pictures
import pytest
from html_files import Document
from places import DOCS, ROOT

from netlab.analysis.findings import analyse
from netlab.report import glossary, html
from netlab.report.linking import linked
from netlab.report.markup import Markup, tag

PAGE = (DOCS / "glossary.md").read_text()


def report() -> Document:
    """The report of a hand-made run that was reset."""
    result, recording = pictures.run(pictures.reset(), bytes_received=2304, ended=False)
    return Document(html.render(result, analyse(recording)))


def test_each_word_has_one_meaning_and_one_anchor() -> None:
    spellings = Counter(word for term in glossary.TERMS for word in (term.name, *term.spellings))
    assert [word for word, count in spellings.items() if count > 1] == []
    anchors = [term.anchor for term in glossary.TERMS]
    assert re.findall(r'<a id="([^"]*)">', PAGE) and sorted(re.findall(r'<a id="([^"]*)">', PAGE)) == sorted(anchors)
    assert len(set(anchors)) == len(anchors)
    assert all(term.meaning.endswith((".", ")")) for term in glossary.TERMS)


def test_each_link_to_the_glossary_leads_to_a_word() -> None:
    """Of every page, since they say `glossary.md#word-…`."""
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    asked = {anchor for page in pages for anchor in re.findall(r"glossary\.md#([\w-]+)", page.read_text())}
    assert asked - {term.anchor for term in glossary.TERMS} == set()


def test_the_words_of_a_report_lead_to_their_meanings_in_it() -> None:
    document = report()
    links = [attrs["href"] for attrs, _ in document.all("a") if attrs.get("class") == "term"]
    meanings = {attrs["id"]: text for attrs, text in document.all("dt") if attrs.get("id", "").startswith("word-")}  # type: ignore[union-attr]
    assert {f"#{anchor}" for anchor in meanings} == set(links)
    assert {"word-td-maxend", "word-invalid", "word-conntrack", "word-rst"} <= set(meanings)
    assert meanings["word-td-maxend"] == "td_maxend"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (tag("p", "a RST"), '<p>a <a class="term" href="#word-rst">RST</a></p>'),
        (tag("p", "Conntrack"), '<p><a class="term" href="#word-conntrack">Conntrack</a></p>'),
        (tag("p", "challenge ACKs"), '<p><a class="term" href="#word-challenge-ack">challenge ACKs</a></p>'),
        (tag("p", "a new, invalid, client-lab"), "<p>a new, invalid, client-lab</p>"),
        (tag("a", tag("b", "RST"), href="x"), '<a href="x"><b>RST</b></a>'),
        (tag("p", "x", title="a > RST"), '<p title="a &gt; RST">x</p>'),
        (
            tag("section", tag("h2", "RST"), tag("p", "RST, RST")),
            '<section><h2>RST</h2><p><a class="term" href="#word-rst">RST</a>, RST</p></section>',
        ),
    ],
)
def test_the_first_use_of_a_word_in_a_section_is_a_link(before: Markup, after: str) -> None:
    assert linked([before])[0] == after


def test_the_meanings_used_come_last_in_the_order_of_the_alphabet() -> None:
    *_, words = linked([tag("p", "td_maxend"), tag("p", "a twin")])
    assert words == (
        '<div class="glossary"><section aria-labelledby="words"><h2 id="words">Words</h2><dl>'
        '<div><dt id="word-td-maxend">td_maxend</dt><dd>In a conntrack entry, for each side: the end of the data that '
        "the other side has allowed it to send. It is the largest ack + window that conntrack saw from the other side."
        '</dd></div><div><dt id="word-twin">twin</dt><dd>The <code>ip</code>, <code>nft</code> or <code>sysctl</code> '
        "command that does the same as a step of <code>netlab plan</code>.</dd></div></dl></section></div>"
    )
    assert linked([tag("p", "nothing of ours")]) == ["<p>nothing of ours</p>"]
