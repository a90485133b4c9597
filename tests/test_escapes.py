"""What is shown in the place of characters that a terminal would obey."""

from __future__ import annotations

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from hostile import FORBIDDEN, forbidden
from hypothesis import example, given, settings
from hypothesis import strategies as st

from netlab import escapes
from netlab.report.markup import tag
from netlab.report.wrapping import wrap

HIDDEN = st.sampled_from(sorted(char for char in FORBIDDEN if char != "\0" and not "\ud800" <= char <= "\udfff"))
ANYTHING = st.text(
    st.one_of(st.characters(exclude_categories=()), HIDDEN, st.sampled_from("\t\n a\0\udcff\ud800")), max_size=200
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, tab\tand\nnewline", "plain, tab\tand\nnewline"),
        ("Grüße, 世界 👩‍💻 می‌خواهم …", "Grüße, 世界 👩‍💻 می‌خواهم …"),
        ("\x1b[2J\x1b]52;c;eA==\x07", "\\x1b[2J\\x1b]52;c;eA==\\x07"),
        ("\x00\x08\r\x7f", "\\x00\\x08\\r\\x7f"),
        ("\x85\x9b31m", "\\x85\\x9b31m"),
        ("a\u202eb\u2066c\u200fd\u061ce", "a\\u202eb\\u2066c\\u200fd\\u061ce"),
        ("\u2028\u2029\ufeff\U000e0041", "\\u2028\\u2029\\ufeff\\U000e0041"),
        ("\udcff\udc80 \ud800 \udbff", "\\xff\\x80 \\ud800 \\udbff"),
        ("\ufffe\uffff\U0010ffff\ufdd0", "\\ufffe\\uffff\\U0010ffff\\ufdd0"),
    ],
)
def test_each_kind(text: str, shown: str) -> None:
    assert escapes.lines(text) == shown


def test_one_line() -> None:
    assert escapes.line("a\n\tb\r\n") == "a\\n\\tb\\r\\n"
    assert escapes.shown("a\nb\x1b") == "a\\nb\\x1b"
    assert escapes.shown(escapes.Lines("a\nb\x1b")) == "a\nb\\x1b"


def test_every_character_of_unicode_is_kept_or_named() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    kept = [char for char in every if escapes.line(char) == char]
    assert {char for char in every if char.isprintable()} <= set(kept)
    assert FORBIDDEN & set(kept) == set()


@given(ANYTHING)
@example("\n\x1b\n")
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = escapes.lines(text)
    assert not forbidden(shown)
    assert escapes.lines(shown) == shown
    assert shown.count("\n") == text.count("\n")
    assert not forbidden(escapes.line(text)) and not set(escapes.line(text)) & set("\n\t")
    shown.encode()


@given(ANYTHING, ANYTHING)
def test_pieces_are_shown_as_the_whole_is(one: str, other: str) -> None:
    assert escapes.lines(one) + escapes.lines(other) == escapes.lines(one + other)


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), ANYTHING), st.lists, max_leaves=5))
def test_json_stays_json(value: object) -> None:
    text = escapes.as_json({"value": value})
    assert text.isascii() and escapes.lines(text) == text
    assert json.loads(text) == json.loads(json.dumps({"value": value}))  # which joins two halves of a pair


@settings(max_examples=20)
@given(st.lists(st.text(st.one_of(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), HIDDEN))))
def test_a_shell_reads_the_same_words(words: list[str]) -> None:
    script = f"printf '%s\\0' {escapes.shell_words(['', *words])}"
    assert not forbidden(script)
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().split("\0")[1:-1] == words


@given(ANYTHING, ANYTHING)
def test_markup_is_xml_whatever_is_in_it(text: str, attribute: str) -> None:
    element = tag("p", text, title=attribute)
    assert not forbidden(element)
    assert ElementTree.fromstring(element).text == (escapes.lines(text) or None)


@given(ANYTHING, st.integers(40, 120))
def test_wrapped_lines_are_as_wide_as_they_are_shown(text: str, width: int) -> None:
    for line in wrap(text, width):
        assert escapes.line(line) == line
        assert len(line) <= width
