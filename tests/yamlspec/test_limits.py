"""Documents that ask for too much: each is refused with its place, before it takes memory or time."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest

from netlab.errors import TopologyError
from netlab.yamlspec import limits
from netlab.yamlspec.compose import compose, is_experiment
from netlab.yamlspec.document import Reader, nearest
from netlab.yamlspec.settings import apply
from netlab.yamlspec.shapes import Anything, Fields, Key, ListOf, MapOf, Seconds, Text

WORDS = MapOf(ListOf(Text("a word"), single=True))


def told(text: str, shape: MapOf | Fields = WORDS) -> str:
    """What is told of a document that isn't read, or is read with problems."""
    reader = Reader("it")
    try:
        root = compose(text, "it").root
        reader.read_variables(root)
        shape.read(reader, root, "")
    except TopologyError as error:
        return str(error)
    return str(TopologyError("it", reader.problems))


def test_nodes_are_counted_before_they_are_made() -> None:
    text = "a: [" + "[]," * 5_000_000 + "]"
    tracemalloc.start()
    try:
        assert told(text) == (
            "it:1:4: the file has more than 500,000 keys, values and list items\n"
            "  hint: those of an alias (*name) count each time it is used"
        )
        assert tracemalloc.get_traced_memory()[1] < 400 << 20
    finally:
        tracemalloc.stop()


def test_as_many_nodes_as_may_be_are_read() -> None:
    text = "a: [" + "a," * (limits.MAX_NODES - 4) + "a]"
    assert compose(text, "it").nodes == limits.MAX_NODES
    assert told(text) == ""
    assert "more than 500,000" in told(text.replace("[", "[a, "))


def test_an_alias_counts_at_each_use_and_at_any_depth() -> None:
    doubled = "\n".join(f"k{one}: &k{one} [*k{zero}, *k{zero}]" for zero, one in pairwise(range(19)))
    assert told(f"k0: &k0 word\n{doubled}\n").startswith("it:19:6: the file has more than 500,000 keys")
    longer = "\n".join(f"k{one}: &k{one} [*k{zero}]" for zero, one in pairwise(range(100)))
    assert told(f"k0: &k0 word\n{longer}\n") == "it:65:6: its aliases nest it more than 64 levels deep"


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {? *a : b}", "a: [&b [c, [*b]]]"])
def test_what_stands_inside_itself_is_refused(text: str) -> None:
    assert "an alias of it stands inside of it\n  hint: write out what is meant there" in told(text)


def test_a_mapping_merged_into_itself_is_told_with_its_path() -> None:
    shape = MapOf(MapOf(Text("a word")))
    assert told("a: &a {<<: *a, b: c}", shape) == "it:1:4: a: << merges a mapping into itself"
    assert told("a: &a {<<: [{<<: *a}], b: c}", shape) == "it:1:4: a: << merges a mapping into itself"


def test_percent_tags_by_the_thousand_are_refused() -> None:
    tags = "".join(f"%TAG !{number}! tag:x\n" for number in range(200_000))
    assert told(f"{tags}---\na: b\n") == ("it:1:1: more than 100 lines begin with %\n  hint: a topology needs no %TAG")


@pytest.mark.parametrize("steps", [20, 64, 5000])
def test_variables_that_double_are_refused_where_they_are_too_much(steps: int) -> None:
    doubled = "\n".join(f"  v{one}: '${{v{zero}}}${{v{zero}}}'" for zero, one in pairwise(range(steps)))
    text = f"vars:\n  v0: {'x' * 100}\n{doubled}\nuse: '${{v{steps - 1}}}'\n"
    shape = Fields({"vars": Key(MapOf(Text("a word")), ""), "use": Key(Text("a word"), "")})
    assert told(text, shape) == (
        "it:19:8: vars.v17: the variables stand for more than 16,777,216 characters\n"
        "  hint: a variable of variables doubles with each step"
    )


def test_a_variable_used_too_often_is_refused_at_the_place_that_is_too_much() -> None:
    text = f"vars: {{v: {'x' * 100_000}}}\n" + "".join(f"u{number}: '${{v}}1'\n" for number in range(3000))
    assert told(text, MapOf(Anything())) == ""
    found = told(text, MapOf(ListOf(Text("a word"), single=True)))
    assert "it:169:7: u167: the variables stand for more than 16,777,216 characters" in found


def test_two_hundred_problems_are_told_and_that_there_are_more() -> None:
    lines = told("".join(f"k{number}: {{}}\n" for number in range(10_000))).splitlines()
    assert len(lines) == limits.MAX_PROBLEMS + 2
    assert lines[0] == "it:1:5: k0: expected a word, found a mapping"
    assert lines[-3:] == [
        "it:200:7: these 200 problems are not all",
        "  hint: mend them first",
        "it:200:7: k199: expected a word, found a mapping",
    ]


def test_messages_paths_and_hints_are_cut() -> None:
    reader = Reader("it")
    node = compose("a", "it").root
    reader.problem(node, "p" * 5000, "m" * 5000, "h" * 5000)
    assert [len(text) for text in reader.problems[0][2:]] == [limits.MAX_MESSAGE] * 3
    reader.warn(node, "p" * 5000, "m" * 5000, "h" * 5000)
    assert [len(text) for text in reader.warnings[0][2:]] == [limits.MAX_MESSAGE] * 3


def test_warnings_are_as_many_as_problems() -> None:
    reader = Reader("it")
    node = compose("a", "it").root
    for number in range(10_000):
        reader.warn(node, "", f"warning {number}", "")
    assert len(reader.warnings) == limits.MAX_PROBLEMS


def test_a_long_key_is_refused() -> None:
    assert told(f"? {'k' * 5_000_000}\n: {{}}\n") == "it:1:3: the key has 5,000,000 characters\n  hint: at most 255"


def test_a_long_number_is_no_length_of_time() -> None:
    found = told(f"a: {'9' * 5000}", MapOf(Seconds()))
    assert found == (
        f"it:1:4: a: expected seconds, more than 0 and at most 86400, found the whole number {'9' * 37}..."
    )
    assert "found the number" in told(f"a: 1.{'9' * 5000}", MapOf(Seconds()))


def test_a_name_is_suggested_from_many_at_once() -> None:
    names = [f"name-number-{number}" for number in range(limits.MAX_SUGGESTED)]
    assert nearest("name-nunber-1234", names) == "name-number-1234"
    assert nearest("nmae-number-7", names) == "name-number-7"
    assert nearest("x" * 1000, names) is None
    assert nearest("name-nunber-1234", [*names, "one-more"]) is None


@pytest.mark.parametrize("text", ["{[a]: 1}", "? [a, b]\n: 1\n? {x: y}\n: 2\n", "? - a\n: b\n", "[claim, steps]", "x"])
def test_keys_that_are_no_text_make_no_experiment(text: str) -> None:
    assert not is_experiment(compose(text, "it").root)
    assert "Traceback" not in told(text)


@pytest.mark.parametrize("path", ["a" + ".a" * 1000, "a" + "[0]" * 1000, "a." * 20_000])
def test_a_path_that_leads_too_deep_is_refused(path: str) -> None:
    reader = Reader("--set")
    apply(reader, compose("a: {}", "it").root, Fields({"a": Key(Anything(), "")}), path, "1")
    assert [one.message for one in reader.problems] == ["the path leads too deep"]


@pytest.mark.parametrize("path", ["a[x", "a[", "a[0", "a.b[x", "a..", "a.[", "a.b.[", "[", ".", "a[+]x"])
def test_a_path_that_is_no_path_leads_nowhere(path: str) -> None:
    reader = Reader("--set")
    apply(reader, compose("a: {b: c}", "it").root, Fields({"a": Key(Anything(), "")}), path, "1")
    assert len(reader.problems) <= 1
