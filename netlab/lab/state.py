"""What belongs to a lab, as a value, and as the text that `state.json` holds. Pure.

Whoever finds the text takes the lab down with it, so it is read strictly: what is no state of ours is a ValueError that
says where. What it names is still only a claim: `standing.py` holds it against the kernel before anything is touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn, TypeAlias, TypeVar


class Holder(NamedTuple):
    """A lab's holder, named so that no other process can be taken for it: see `holder.py`.

    pid is the host's number; start_ticks is field 22 of /proc/PID/stat, in clock ticks since boot.
    """

    pid: int
    start_ticks: int


class StartedProgram(NamedTuple):
    """A program of the topology that runs in the lab, by its pid in the lab's PID namespace."""

    netns: str
    name: str
    pid: int
    start_ticks: int


class Asked(NamedTuple):
    """What a lab is to become, beside the text: the topology's path (None: standard input), `--set` pairs, fixes."""

    file: str | None
    settings: tuple[tuple[str, str], ...] = ()
    fixes: tuple[str, ...] = ()


class LabState(NamedTuple):
    """What a lab owns, and what it was made from.

    namespaces are (name, inode of the network namespace). file is the topology's path or None for standard input,
    settings the `--set` pairs. former are sysctls (netns, key, value) as they were before a change of the lab that
    stands first set them. following are the changes of the lab that stands that are under way or were cut short, oldest
    first. complete is false from before the first step of its building until after the last. boot_id tells a state from
    before a reboot.
    """

    lab: str
    boot_id: str
    rootless: bool
    file: str | None
    settings: tuple[tuple[str, str], ...] = ()
    fixes: tuple[str, ...] = ()
    holder: Holder | None = None
    namespaces: tuple[tuple[str, int], ...] = ()
    programs: tuple[StartedProgram, ...] = ()
    former: tuple[tuple[str, str, str], ...] = ()
    following: tuple[Asked, ...] = ()
    complete: bool = False

    @property
    def prefix(self) -> str:
        """What stands before a namespace's name where the names are kept, which root's labs share with the host."""
        return "" if self.rootless else f"{self.lab}-"


def encode(state: LabState) -> bytes:
    """The text of `state.json`."""
    fields = {
        **state._asdict(),
        "holder": state.holder and state.holder._asdict(),
        "programs": [program._asdict() for program in state.programs],
        "following": [asked._asdict() for asked in state.following],
    }
    return json.dumps(fields).encode()


def decode(data: bytes) -> LabState:
    """The state that `encode` was given; ValueError, saying where and what, for anything else."""
    try:
        raw = json.loads(data.decode(), parse_constant=_no_number, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return _state(raw, "")


# --- one kind of value each: what JSON has there, and its place for the complaint ------------------------------------

_Read: TypeAlias = Callable[[Any, str], Any]
_Value = TypeVar("_Value")


def _refuse(raw: Any, at: str, wanted: str) -> NoReturn:
    raise ValueError(f"{at or 'it'} is {_kind(raw)}, not {wanted}")


def _kind(raw: Any) -> str:
    match raw:
        case None | bool() | int() | float() | str():
            return f"{raw!a:.40}"
        case list():
            return "a list"
    return "an object"


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _number(low: int, high: int) -> _Read:
    def read(raw: Any, at: str) -> int:
        if type(raw) is not int or not low <= raw <= high:
            _refuse(raw, at, f"a number from {low} to {high}")
        return raw

    return read


def _truth(raw: Any, at: str) -> bool:
    if not isinstance(raw, bool):
        _refuse(raw, at, "true or false")
    return raw


def _text(raw: Any, at: str) -> str:
    """A text that the system can be given: no NUL, and no surrogates but those that stand for a path's odd bytes."""
    if not isinstance(raw, str) or "\0" in raw:
        _refuse(raw, at, "a text")
    try:
        raw.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        _refuse(raw, at, "a text")
    return raw


def _name(raw: Any, at: str) -> str:
    """The name of a file in a directory, of which it can't lead out."""
    text = _text(raw, at)
    if "/" in text or text in ("", ".", ".."):
        _refuse(raw, at, "a name")
    return text


def _sysctl(raw: Any, at: str) -> str:
    """The name of a sysctl of a network namespace; a slash in it stands for a dot in an interface's name."""
    text = _text(raw, at)
    parts = [part.replace("/", ".") for part in text.split(".")]
    if parts[0] != "net" or any(part in ("", ".", "..") for part in parts):
        _refuse(raw, at, "a sysctl of a network namespace")
    return text


def _maybe(one: _Read) -> _Read:
    return lambda raw, at: None if raw is None else one(raw, at)


def _list(one: _Read) -> _Read:
    def read(raw: Any, at: str) -> tuple[Any, ...]:
        if not isinstance(raw, list):
            _refuse(raw, at, "a list")
        return tuple(one(item, f"{at}[{index}]") for index, item in enumerate(raw))

    return read


def _row(*columns: _Read) -> _Read:
    def read(raw: Any, at: str) -> tuple[Any, ...]:
        if not isinstance(raw, list) or len(raw) != len(columns):
            _refuse(raw, at, f"a list of {len(columns)}")
        return tuple(one(item, f"{at}[{index}]") for index, (one, item) in enumerate(zip(columns, raw, strict=True)))

    return read


def _members(kind: Callable[..., _Value], readers: Mapping[str, _Read]) -> Callable[[Any, str], _Value]:
    """An object with these members, no fewer and no more, as the value that kind makes of them."""

    def read(raw: Any, at: str) -> _Value:
        if not isinstance(raw, dict):
            _refuse(raw, at, "an object")
        place = f"{at}." if at else ""
        for name in sorted(readers.keys() ^ raw.keys()):
            raise ValueError(f"{place}{name!a:.40} is {'missing' if name in readers else 'unknown'}")
        return kind(**{name: one(raw[name], f"{place}{name}") for name, one in readers.items()})

    return read


_PID = _number(2, 1 << 22)  # PID_MAX_LIMIT (include/linux/threads.h); 1 is the lab's own init, or the machine's
_TICKS = _number(0, (1 << 63) - 1)
_INODE = _number(1, (1 << 64) - 1)

_ASKED: dict[str, _Read] = {
    "file": _maybe(_text),
    "settings": _list(_row(_text, _text)),
    "fixes": _list(_text),
}

_state = _members(
    LabState,
    {
        "lab": _name,
        "boot_id": _text,
        "rootless": _truth,
        **_ASKED,
        "holder": _maybe(_members(Holder, {"pid": _PID, "start_ticks": _TICKS})),
        "namespaces": _list(_row(_name, _INODE)),
        "programs": _list(
            _members(StartedProgram, {"netns": _name, "name": _name, "pid": _PID, "start_ticks": _TICKS})
        ),
        "former": _list(_row(_name, _sysctl, _text)),
        "following": _list(_members(Asked, _ASKED)),
        "complete": _truth,
    },
)
