"""A lab's state as text and back: what is no state is refused, and said where."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from states import BARE, FULL

from netlab.lab.state import LabState, decode, encode

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["", "..", "a/b", "\0", "\udcff"])
)
ANY = st.recursive(
    ODD, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4))
)
"""Any value that JSON has, and some that it hasn't."""


@pytest.mark.parametrize("state", [FULL, BARE], ids=["full", "bare"])
def test_what_is_written_is_what_is_read(state: LabState) -> None:
    assert decode(encode(state)) == state


def test_a_path_may_have_bytes_that_are_no_text() -> None:
    state = BARE._replace(file="/tmp/\udcff.yaml")
    assert decode(encode(state)) == state


def damaged(**members: Any) -> bytes:
    """FULL as text, with these members instead of its own; ... takes one out."""
    whole = {**json.loads(encode(FULL)), **members}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "it is a list, not an object"),
        (b"null", "it is None, not an object"),
        (b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"lab": "a", "lab": "b"}', "a key is there twice"),
        (b"NaN", "NaN is no number"),
        (damaged(colour=1), "'colour' is unknown"),
        (damaged(lab=...), "'lab' is missing"),
        (damaged(lab="../lab"), "lab is '../lab', not a name"),
        (damaged(lab=".."), "lab is '..', not a name"),
        (damaged(lab=""), "lab is '', not a name"),
        (damaged(file="a\0b"), "file is 'a\\x00b', not a text"),
        (damaged(file="\ud800"), "file is '\\ud800', not a text"),
        (damaged(rootless=1), "rootless is 1, not true or false"),
        (damaged(settings=[["a"]]), "settings[0] is a list, not a list of 2"),
        (damaged(holder=7), "holder is 7, not an object"),
        (damaged(holder={"pid": 7}), "holder.'start_ticks' is missing"),
        (damaged(holder={"pid": -1, "start_ticks": 5}), "holder.pid is -1, not a number from 2 to 4194304"),
        (damaged(holder={"pid": True, "start_ticks": 5}), "holder.pid is True, not a number from 2 to 4194304"),
        (damaged(holder={"pid": 7.0, "start_ticks": 5}), "holder.pid is 7.0, not a number from 2 to 4194304"),
        (damaged(namespaces=[["../x", 4026531840]]), "namespaces[0][0] is '../x', not a name"),
        (damaged(namespaces=[["x", 10**400]]), f"namespaces[0][1] is 1{39 * '0'}, not a number from 1 to {2**64 - 1}"),
        (
            damaged(programs=[{"netns": "a", "name": "b", "pid": 0, "start_ticks": 1}]),
            "programs[0].pid is 0, not a number from 2 to 4194304",
        ),
        (
            damaged(former=[["a", "net.ipv4.//.kernel", "1"]]),
            "former[0][1] is 'net.ipv4.//.kernel', not a sysctl of a network namespace",
        ),
        (
            damaged(former=[["a", "kernel.core_pattern", "1"]]),
            "former[0][1] is 'kernel.core_pattern', not a sysctl of a network namespace",
        ),
    ],
)
def test_what_is_no_state_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as raised:
        decode(data)
    assert str(raised.value) == problem


def taken(data: bytes) -> LabState | None:
    """What the bytes stand for; None where they are refused, with a complaint that a terminal can show."""
    try:
        return decode(data)
    except ValueError as error:
        assert str(error).isprintable()
        return None


@given(st.binary())
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    assert taken(data) is None


@given(ANY)
def test_any_json_is_taken_or_refused(value: Any) -> None:
    assert taken(json.dumps(value).encode()) is None


def places(value: Any) -> list[tuple[Any, ...]]:
    """Every way down into a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *rest) for key, inner in items for rest in places(inner))]


def replaced(value: Any, way: tuple[Any, ...], by: Any) -> Any:
    """The value with something else at that place."""
    if not way:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = replaced(value[way[0]], way[1:], by)
    return copy


WHOLE = json.loads(encode(FULL))
DAMAGED: SearchStrategy[Any] = st.builds(replaced, st.just(WHOLE), st.sampled_from(places(WHOLE)), ANY)


@given(DAMAGED)
def test_a_state_with_one_odd_value_is_taken_as_it_is_or_refused(value: Any) -> None:
    data = json.dumps(value).encode()
    state = taken(data)
    if state is not None:
        assert json.loads(encode(state)) == value
        assert all("/" not in name and name not in ("", ".", "..") for name, _ in state.namespaces)


@given(st.integers(0, len(encode(FULL)) - 1), st.binary(max_size=3))
def test_a_text_cut_short_or_overwritten_is_taken_or_refused(place: int, bytes_: bytes) -> None:
    whole = encode(FULL)
    assert taken(whole[:place]) is None
    taken(whole[:place] + bytes_ + whole[place + len(bytes_) :])
