"""Words that would do more than say something: regular expressions, an nftables table's text, numbers of any length."""

from __future__ import annotations

import json
import warnings

import pytest

from netlab.errors import TopologyError
from netlab.links.qdisc import CHANCE, COUNT, RATE, SIZE, TIME
from netlab.topology import load, words
from netlab.yamlspec.compose import compose
from netlab.yamlspec.document import Reader
from netlab.yamlspec.limits import MAX_NUMBER, MAX_REGEX, MAX_TABLE
from netlab.yamlspec.shapes import InvalidError, Key


def refusal(text: str) -> str:
    with pytest.raises(InvalidError) as caught:
        words.nft_body(text)
    return caught.value.message


# --- regular expressions ---


@pytest.mark.parametrize(
    "pattern",
    [
        *("(" * 5000 + ")" * 5000, "(" * 450 + "a" + ")" * 450, "a{99999999999999999999}", "a" * (MAX_REGEX + 1)),
        *("(", "[a--b]", "(?P<a>b)(?P<a>c)", "\\", "(?<=a+)b", "*", "(?i)a(?i)", "\\N{no such}", "(?(9)a|b)"),
    ],
)
def test_what_is_no_regular_expression_is_refused(pattern: str) -> None:
    try:
        assert words.regex(pattern) == pattern
    except InvalidError as invalid:
        assert "regular expression" in invalid.message
        assert len(invalid.message) < 200


def test_nobody_is_warned_of_what_another_python_would_read_differently() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert words.regex("[[a]]+[a||b]") == "[[a]]+[a||b]"


# --- tables ---

INCLUDES = (
    'include "/etc/passwd"',
    'include"/etc/passwd"',
    'include\t \t"/etc/passwd"',
    'include \\\n "/etc/passwd"',
    'include \\\r\n "/etc/passwd"',
    'chain c { include "/etc/passwd"; }',
    'chain c {\n}; include "/dev/zero"',
    'set s { type ipv4_addr; include "x"; }',
    '1include "x"',
    '0xffinclude "x"',
    'aa:bb:cc:dd:ee:ffinclude "x"',
    '# a comment\ninclude "x"',
    'comment "text"; include "x"',
    '"\ninclude "x"\n"',
    '"\n" include "x"',
    '"# " include "x"',
    '# "\ninclude "x" # "',
    'include "',
)


@pytest.mark.parametrize("text", INCLUDES)
def test_a_table_reads_no_file(text: str) -> None:
    assert refusal(text) == "the table includes a file: a topology reads no others"


@pytest.mark.parametrize(
    "text",
    [
        '# include "x"',
        'chain c { comment "include x"; }',
        "chain include { }",
        "chain c { jump include }",
        'chain c { iifname "include" accept }',
        'chain c { # not: include "x"\n}',
    ],
)
def test_a_table_may_speak_of_inclusion(text: str) -> None:
    assert words.nft_body(text) == text


@pytest.mark.parametrize("text", ["}", "{", "}{", '"\n}\n{"', '"\n{"\n', '"a\n"}"'])
def test_braces_are_in_pairs_wherever_a_string_ends(text: str) -> None:
    assert refusal(text).startswith("the table's text has a brace that ")


def test_a_table_has_a_length() -> None:
    assert refusal("#" * (MAX_TABLE + 1)) == "the table's text has 262,145 characters"


# --- numbers ---


def problem(key: Key, text: str) -> str:
    reader = Reader("it")
    key.shape.read(reader, compose(json.dumps(text), "it").root, "")
    return reader.problems[0].message if reader.problems else ""


@pytest.mark.parametrize("length", [400, 5000, 100_000])
@pytest.mark.parametrize(
    ("key", "unit"), [(RATE, "bit"), (RATE, "tbps"), (SIZE, "gb"), (SIZE, ""), (TIME, "s"), (COUNT, ""), (CHANCE, "%")]
)
def test_a_number_of_any_length_is_told_in_a_line(key: Key, unit: str, length: int) -> None:
    for number in ("9" * length, "0." + "0" * length, "1." + "9" * length):
        told = problem(key, number + unit)
        assert " is not a" in told
        assert len(told) < MAX_NUMBER + 100


@pytest.mark.parametrize(
    ("key", "fits", "too_much"),
    [
        (SIZE, "2147483647b", "2147483648b"),
        (SIZE, "1.9gb", "2gb"),
        (SIZE, "15gbit", "99999999gbit"),
        (TIME, "274s", "275s"),
        (TIME, "274000ms", "274000001us"),
        (COUNT, "2147483647", "2147483648"),
        (CHANCE, "100%", "100.1%"),
        (CHANCE, "5% 100%", "5% 500%"),
    ],
)
def test_more_than_the_kernel_takes_is_refused(key: Key, fits: str, too_much: str) -> None:
    assert problem(key, fits) == ""
    assert too_much.split()[-1] in problem(key, too_much)


HUGE = "9" * 5000


@pytest.mark.parametrize(
    "text",
    [
        f"namespaces: {{a: {{routes: [{{to: default, via: 1.2.3.4, metric: {HUGE}}}]}}}}",
        f"namespaces: {{a: {{programs: [{{name: x, command: 'true', ready: {{listening: {HUGE}}}}}]}}}}",
        f"namespaces: {{a: {{programs: [{{name: x, command: 'true', ready: {{timeout_s: {HUGE}}}}}]}}}}",
        f"namespaces: {{a: {{programs: [{{name: x, command: 'true', ready: {{timeout_s: 1e{HUGE}}}}}]}}}}",
        f"namespaces: {{a: {{loopback: 10.0.0.1/{HUGE}}}}}",
        f"namespaces: {{a: {{loopback: {HUGE}.0.0.1}}}}",
        f"namespaces: {{a: {{loopback: '{'f' * 5000}::1'}}}}",
        f"namespaces: {{a: {{}}}}\nservices: {{s: {{port: {HUGE}}}}}",
        f"namespaces: {{a: {{}}}}\nlinks: [{{ends: [a, {{netns: a, mtu: -{HUGE}}}]}}]",
        f"namespaces: {{a: {{}}}}\nlinks: [{{ends: [a, {{netns: a, qdisc: {{kind: tbf, rate: {HUGE}}}}}]}}]",
        "namespaces: {a: {programs: [{name: x, command: 'true', ready: {timeout_s: .nan}}]}}",
        "namespaces: {a: {programs: [{name: x, command: 'true', ready: {timeout_s: .inf}}]}}",
        "namespaces: {a: {programs: [{name: x, command: 'true', ready: {timeout_s: 0x10}}]}}",
        "namespaces: {2026-11-29: {}, 2001-12-14t21:59:43.10-05:00: {}}",
    ],
)
def test_no_number_is_too_long_to_be_refused(text: str) -> None:
    with pytest.raises(TopologyError) as caught:
        load(text, "lab.yaml")
    assert all(len(one) <= 1100 for one in str(caught.value).splitlines())


@pytest.mark.parametrize(
    "text", ["https://kernel.org", "https://git.kernel.org/linus/6e250dcbff1d", "https://a:8443/b?c=d#e"]
)
def test_what_can_be_read_on_the_web(text: str) -> None:
    assert words.web_address(text) == text


@pytest.mark.parametrize(
    "text", ["http://kernel.org", "javascript:alert(1)", "https://", "https://a/ b", 'https://a/"', ""]
)
def test_what_is_no_address_on_the_web(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        words.web_address(text)
    assert caught.value.hint == "as https://example.org/page"
