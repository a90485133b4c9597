"""Values as JSON and back: whole, or a ValueError that says where."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Any

import pytest
from story import FLOW

from netlab.analysis.result import Load, Outcome, TrialResult
from netlab.model import Address
from netlab.record.codec import from_json, to_json


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Inner:
    number: int


@dataclass(frozen=True, slots=True)
class Other:
    text: str = "default"


@dataclass(frozen=True, slots=True)
class Outer:
    either: Inner | Other
    several: tuple[Inner | Other, ...]
    pair: tuple[str, int]
    maybe: int | None
    where: Address | None
    raw: bytes
    colour: Colour
    share: float
    yes: bool
    last: str = ""


VALUE = Outer(Inner(1), (Other("é"), Inner(2)), ("a", 1), None, ip_address("fe80::1"), b"\0\xff", Colour.RED, 0.5, True)
JSON = {
    "is": "Outer",
    "either": {"is": "Inner", "number": 1},
    "several": [{"is": "Other", "text": "é"}, {"is": "Inner", "number": 2}],
    "pair": ["a", 1],
    "maybe": None,
    "where": "fe80::1",
    "raw": "AP8=",
    "colour": "red",
    "share": 0.5,
    "yes": True,
    "last": "",
}


def test_a_value_is_this_json_and_comes_back() -> None:
    assert to_json(VALUE) == JSON
    assert from_json(json.loads(json.dumps(to_json(VALUE))), Outer) == VALUE


def test_what_another_version_does_not_have_is_no_mistake() -> None:
    assert from_json({"is": "Other", "newer": [1]}, Other) == Other("default")


def changed(**members: Any) -> Any:
    return {**JSON, **members}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ([], "[] is no dict"),
        ({"is": "Inner"}, "'Inner', not Outer"),
        ({key: value for key, value in JSON.items() if key not in ("raw", "pair")}, "Outer without pair, raw"),
        (changed(either={"is": "Nothing"}), "either: 'Nothing': not one of Inner, Other"),
        (changed(either={"is": "Inner", "number": "1"}), "either.number: '1' is no int"),
        (changed(either={"is": "Inner", "number": True}), "either.number: True is no int"),
        (changed(either=5), "either: 5 is neither Inner nor Other"),
        (changed(several=[{"is": ["Inner"]}]), "several[0]: ['Inner']: not one of Inner, Other"),
        (changed(several={}), "several: {} is no list"),
        (changed(pair=["a"]), "pair: a list of 1, not of 2"),
        (changed(maybe="1"), "maybe: '1' is no int"),
        (changed(where="here"), "where: 'here' does not appear to be an IPv4 or IPv6 address"),
        (changed(where=1), "where: 1 is no str"),
        (changed(raw="AA"), "raw: Incorrect padding"),
        (changed(colour="blue"), "colour: 'blue' is not a valid Colour"),
        (changed(share="0.5"), "share: '0.5' is no float"),
        (changed(yes=1), "yes: 1 is no bool"),
    ],
)
def test_what_is_not_whole_is_an_error_that_says_where(raw: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        from_json(raw, Outer)
    assert str(caught.value) == said


def test_a_load_is_read_under_its_former_name() -> None:
    load = Load(1, (), None, 2, 3)
    trial = TrialResult(Outcome.COMPLETED, 1.0, 1, FLOW, (), 1, 1, load=load)
    raw = to_json(trial)
    raw["crowd"] = {**raw.pop("load"), "is": "Crowd"}
    assert from_json(raw, TrialResult) == trial
