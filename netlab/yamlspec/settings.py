"""`--set path=value`, and what a fix of the file's own sets: a value is put into the document before that is read, and
so is checked like the file's other values.

A path is `vars.client_window`, `namespaces.client.sysctls.net.ipv4.tcp_rmem`, `links[0].subnet` or `links.0.subnet`;
a list's items with a name go by it too: `bridges.cni0.mtu`; `routes[+]` is an item more. Keys with dots are found,
since the longest known key wins.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from netlab.errors import TopologyError
from netlab.yamlspec.compose import UNTAGGED, composed
from netlab.yamlspec.document import NULLS, Reader, suggest
from netlab.yamlspec.limits import MAX_DEPTH, MAX_MESSAGE, MAX_SET
from netlab.yamlspec.shapes import Anything, Fields, InvalidError, Kinds, ListOf, MapOf

# The place of what isn't in the file: line and column come out as 0.
_NOWHERE: Any = yaml.Mark("--set", 0, -1, -1, None, 0)
_INDEX = r"\[?([0-9]{1,9}|\+)\]?"


def apply(reader: Reader, root: Node, shape: object, path: str, text: str) -> Node:
    """The document with one value put in (the given nodes stay as they are); a path to nowhere is a problem."""
    try:
        return _put(reader, root, shape, _path(path), _value(text))
    except InvalidError as invalid:
        reader.problem(_scalar(""), path.strip(), invalid.message, invalid.hint)
        return root


def apply_fixes(reader: Reader, root: Node, shape: object, names: Sequence[str]) -> Node:
    """The document with what the named ones of its own `fixes` set, in order; other names are left to others."""
    defined = _entries(reader, _entries(reader, root).get("fixes"))
    for name in names:
        section = _entries(reader, defined.get(name)).get("set")
        pairs = reader.pairs(section, "") if isinstance(section, MappingNode) else []
        for key, value in pairs[:MAX_SET]:  # that there are more is told where it is read
            try:
                root = _put(reader, root, shape, _path(key.value), value)
            except InvalidError as invalid:
                reader.problem(key, f"fixes.{name}.set.{key.value}", invalid.message, invalid.hint)
    return root


def _entries(reader: Reader, node: Node | None) -> dict[str, Node]:
    return {key.value: value for key, value in reader.pairs(node, "")} if isinstance(node, MappingNode) else {}


def _path(text: str) -> str:
    if not text.strip():
        raise InvalidError("no path for the value", "for instance vars.client_window")
    if len(text) > MAX_MESSAGE or len(re.findall(r"[.\[]", text)) > MAX_DEPTH:
        hint = f"at most {MAX_DEPTH} keys and indexes, and {MAX_MESSAGE} characters"
        raise InvalidError("the path leads too deep", hint)
    return text.strip()


def _scalar(text: str) -> ScalarNode:
    return ScalarNode(UNTAGGED, text, _NOWHERE, _NOWHERE)


def _value(text: str) -> Node:
    if not text.strip():
        return _scalar("")
    try:
        node = composed(text, "--set").root
    except TopologyError as error:
        raise InvalidError(f"the value {text!r} is {error.problems[0].message}", "put it in quotes") from None
    _move(node, set())
    return node


def _move(node: Node, seen: set[int]) -> None:
    # An alias may lead back to a node that is being moved.
    if id(node) in seen:
        return
    seen.add(id(node))
    node.start_mark = node.end_mark = _NOWHERE
    if isinstance(node, MappingNode):
        for key, value in node.value:
            _move(key, seen)
            _move(value, seen)
    elif isinstance(node, SequenceNode):
        for value in node.value:
            _move(value, seen)


def _put(reader: Reader, node: Node | None, shape: object, rest: str, value: Node) -> Node:
    """A copy of node in which the value stands at the path `rest`; other nodes are shared, since aliases use them."""
    if not rest:
        return value
    if node is None or (isinstance(node, ScalarNode) and not node.style and node.value in NULLS):
        if isinstance(shape, ListOf) or (isinstance(shape, Anything) and rest.startswith("[")):
            node = SequenceNode(UNTAGGED, [], value.start_mark, value.end_mark)
        elif isinstance(shape, Fields | MapOf | Kinds | Anything):
            node = MappingNode(UNTAGGED, [], value.start_mark, value.end_mark)
        else:
            raise InvalidError(f"nothing there that {rest!r} could be in")
    if isinstance(shape, ListOf) and shape.single and not isinstance(node, SequenceNode):
        node = SequenceNode(UNTAGGED, [node], node.start_mark, node.end_mark)
    if isinstance(node, MappingNode):
        return _put_key(reader, node, shape, rest, value)
    if isinstance(node, SequenceNode):
        return _put_item(reader, node, shape, rest, value)
    raise InvalidError(f"{rest!r} leads into the text {node.value!r}", "write that part of the file as a mapping")


def _put_key(reader: Reader, node: MappingNode, shape: object, rest: str, value: Node) -> Node:
    pairs = list(reader.pairs(node, ""))
    there = {key.value: index for index, (key, _) in enumerate(pairs)}
    shapes: dict[str, object] = {}
    if isinstance(shape, Fields):
        shapes = {name: key.shape for name, key in shape.keys.items()}
    elif isinstance(shape, Kinds):
        shapes = {name: key.shape for fields in shape.kinds.values() for name, key in fields.keys.items()}
    elif isinstance(shape, MapOf):
        shapes = dict.fromkeys(there, shape.item)
    elif isinstance(shape, Anything) and not rest.startswith("["):  # whoever reads it knows its keys
        shapes = dict.fromkeys([*there, re.split(r"[.\[]", rest, maxsplit=1)[0]], shape)
    elif (parts := getattr(shape, "parts", None)) is not None:  # a shape whose keys are known elsewhere
        shapes = parts()
    found = _first(rest, {**there, **shapes})
    if found is None and isinstance(shape, MapOf) and (shape.may_add or _whole(shape, rest, value)):
        found = rest, ""
        shapes[rest] = shape.item
    if found is None:
        word = re.split(r"[.\[]", rest, maxsplit=1)[0]
        raise InvalidError(f"there is no {word!r}", suggest(word, dict.fromkeys([*there, *shapes])))
    name, tail = found
    index = there.get(name)
    old = None if index is None else pairs[index][1]
    new = _put(reader, old, shapes.get(name), tail, value)
    if index is None:
        pairs.append((ScalarNode(UNTAGGED, name, value.start_mark, value.end_mark), new))
    else:
        pairs[index] = pairs[index][0], new
    return MappingNode(node.tag, pairs, node.start_mark, node.end_mark)


def _whole(shape: MapOf, name: str, value: Node) -> bool:
    """Whether a value is all of a new namespace or service: a part of one whose name is misspelt would be no sense."""
    return isinstance(shape.item, Fields) and isinstance(value, MappingNode) and not re.search(r"[.\[]", name)


def _put_item(reader: Reader, node: SequenceNode, shape: object, rest: str, value: Node) -> Node:
    items = list(node.value)
    index = re.match(_INDEX, rest)
    if index is not None and index.end() < len(rest) and rest[index.end()] not in ".[":
        index = None
    if index is not None:
        tail = rest[index.end() :].removeprefix(".")
        if index[1] == "+":
            item = _put(reader, None, _item(shape), tail, value)
            return SequenceNode(node.tag, [*items, item], node.start_mark, node.end_mark)
        at = int(index[1])
        if at >= len(items):
            hint = f"the list has {len(items)}, counted from 0; [+] is one more"
            raise InvalidError(f"there is no item {at}", hint)
    else:
        names = _names(reader, items)
        found = _first(rest, names)
        if found is None:
            word = re.split(r"[.\[]", rest, maxsplit=1)[0]
            hint = suggest(word, names) or "items are counted from 0: [0]; [+] is one more"
            raise InvalidError(f"there is no item {word!r}", hint)
        at, tail = names[found[0]], found[1]
    items[at] = _put(reader, items[at], _item(shape), tail, value)
    return SequenceNode(node.tag, items, node.start_mark, node.end_mark)


def _item(shape: object) -> object:
    """The shape of an item of a list that has this one."""
    return shape.item if isinstance(shape, ListOf) else shape if isinstance(shape, Anything) else None


def _names(reader: Reader, items: list[Node]) -> dict[str, int]:
    """The index of each item that has a `name`."""
    return {
        value.value: index
        for index, item in enumerate(items)
        if isinstance(item, MappingNode)
        for key, value in reader.pairs(item, "")
        if key.value == "name" and isinstance(value, ScalarNode)
    }


def _first(rest: str, names: Collection[str]) -> tuple[str, str] | None:
    """The longest of names that rest begins with, and what follows it."""
    ends = [len(rest), *(match.start() for match in re.finditer(r"[.\[]", rest))]
    end = max((end for end in ends if rest[:end] in names), default=None)
    return None if end is None else (rest[:end], rest[end:].removeprefix("."))
