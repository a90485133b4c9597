"""The shapes a value can have: each reads a node into a checked value, and says the same as JSON Schema.

A shape knows nothing of labs; which key has which shape is `language.py`'s. Every problem goes to the Reader, and
reading goes on: what could be read comes back, marked `broken` where a part is missing. Shapes are named tuples, not
dataclasses, whose classes take ten times as long to make at every start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from netlab.yamlspec.compose import UNTAGGED
from netlab.yamlspec.document import (
    BOOLEANS,
    FLOAT,
    INTEGER,
    NULLS,
    Item,
    Reader,
    RefusedError,
    flow,
    join,
    kind_of,
    nearest,
    suggest,
)
from netlab.yamlspec.limits import MAX_MESSAGE, MAX_NUMBER

JsonSchema = dict[str, Any]
USES_VARIABLE: JsonSchema = {"$ref": "#/definitions/uses_variable"}
"""A text with `${name}` in it, whatever else the value must be; `schema.py` defines it."""


class InvalidError(ValueError):
    """A text that doesn't parse: the message goes into the problem, the hint below it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Shape(Protocol):
    """What one value may be."""

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        """The value with its place; None where nothing of it could be read (the reader has the problem)."""

    def schema(self) -> JsonSchema:
        """The same rule as JSON Schema (draft 7), as far as that can say it."""


def accepts(reader: Reader, shape: Shape, node: Node, path: str) -> bool:
    """Whether a shape would read a node without a problem: only then may a hint advise it."""
    try:
        item = shape.read(reader.trial(), node, path)
    except RefusedError:
        return False
    return item is not None and not item.broken


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and not node.style and node.value in NULLS


def scalar_of(reader: Reader, node: Node, path: str, expected: str) -> tuple[str, bool] | None:
    """A scalar's text and whether it is plain; a problem where the node is none, or says nothing."""
    if isinstance(node, ScalarNode):
        text = reader.text(node, path)
        if text is None or not (text[1] and text[0] in NULLS):
            return text
    reader.problem(node, path, f"expected {expected}, found {kind_of(node)}")
    return None


class Text(NamedTuple):
    """Text that `parse` turns into a value (InvalidError where it can't); numbers: bare numbers are text too."""

    what: str = "text"
    parse: Callable[[str], Any] | None = None
    pattern: str | None = None
    numbers: bool = False

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        scalar = scalar_of(reader, node, path, self.what)
        if scalar is None:
            return None
        text, plain = scalar
        if plain and not self.numbers and (text in BOOLEANS or FLOAT.fullmatch(text) or INTEGER.fullmatch(text)):
            hint = f'put it in quotes: "{text}"' if self._parses(text) else ""
            reader.problem(node, path, f"expected {self.what}, found {kind_of(node, text, plain)}", hint)
            return None
        if self.parse is None:
            return Item(text, node, path)
        try:
            return Item(self.parse(text), node, path)
        except InvalidError as invalid:
            reader.problem(node, path, invalid.message, invalid.hint)
            return None

    def _parses(self, text: str) -> bool:
        try:
            return self.parse is None or self.parse(text) is not None
        except InvalidError:
            return False

    def schema(self) -> JsonSchema:
        types: Any = ["string", "number", "boolean"] if self.numbers else "string"
        if self.pattern is None:
            return {"type": types}
        return {"anyOf": [{"type": types, "pattern": self.pattern}, USES_VARIABLE]}


class Integer(NamedTuple):
    """A whole number from minimum to maximum."""

    minimum: int
    maximum: int

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        expected = f"a whole number from {self.minimum} to {self.maximum}"
        scalar = scalar_of(reader, node, path, expected)
        if scalar is None:
            return None
        text, plain = scalar
        if not plain or not INTEGER.fullmatch(text) or len(text) > 20:
            reader.problem(node, path, f"expected {expected}, found {kind_of(node, text, plain)}")
            return None
        value = int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        if not self.minimum <= value <= self.maximum:
            reader.problem(node, path, f"{text} is not between {self.minimum} and {self.maximum}")
            return None
        return Item(value, node, path)

    def schema(self) -> JsonSchema:
        return {"anyOf": [{"type": "integer", "minimum": self.minimum, "maximum": self.maximum}, USES_VARIABLE]}


class Seconds(NamedTuple):
    """A length of time in seconds, more than 0 and at most a day."""

    maximum: int = 86_400

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        expected = f"seconds, more than 0 and at most {self.maximum}"
        scalar = scalar_of(reader, node, path, expected)
        if scalar is None:
            return None
        text, plain = scalar
        # YAML's .inf and .nan end in a letter; neither is a time.
        number = plain and len(text) <= MAX_NUMBER and FLOAT.fullmatch(text) and not text[-1].isalpha()
        seconds = float(text) if number else 0.0
        if not 0 < seconds <= self.maximum:
            reader.problem(node, path, f"expected {expected}, found {kind_of(node, text, plain)}")
            return None
        return Item(seconds, node, path)

    def schema(self) -> JsonSchema:
        return {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": self.maximum}, USES_VARIABLE]}


class Boolean(NamedTuple):
    """true or false, or one of a few words for what lies between; the value is a bool or the word."""

    words: tuple[str, ...] = ()

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        expected = " or ".join(("true", "false", *self.words))
        scalar = scalar_of(reader, node, path, expected)
        if scalar is None:
            return None
        text, plain = scalar
        if text in self.words:
            return Item(text, node, path)
        if not plain or text not in BOOLEANS:
            meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), text.lower())
            hint = f"write {meant}{'' if plain else ', without quotes'}" if meant in ("true", "false") else ""
            reader.problem(node, path, f"expected {expected}, found {kind_of(node, text, plain)}", hint)
            return None
        return Item(BOOLEANS[text], node, path)

    def schema(self) -> JsonSchema:
        words: list[JsonSchema] = [{"enum": list(self.words)}] if self.words else []
        return {"anyOf": [{"type": "boolean"}, *words, USES_VARIABLE]}


class Choice(NamedTuple):
    """One of a few words; what names them in a message: `a role`."""

    what: str
    words: tuple[str, ...]

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        expected = f"{self.what} ({' or '.join(self.words)})"
        scalar = scalar_of(reader, node, path, expected)
        if scalar is None:
            return None
        if scalar[0] not in self.words:
            hint = suggest(scalar[0], self.words)
            reader.problem(node, path, f"{scalar[0]!r} is not {self.what}", hint)
            return None
        return Item(scalar[0], node, path)

    def schema(self) -> JsonSchema:
        return {"anyOf": [{"enum": list(self.words)}, USES_VARIABLE]}


class Anything(NamedTuple):
    """Whatever YAML can say, to be read where it is put; the value is its node."""

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:  # noqa: ARG002
        return Item(node, node, path)

    def schema(self) -> JsonSchema:
        return {}


_SEPARATORS = (r"\s*,\s*", r"\s*<?--?>?\s+|\s+", r"<->|--", r"-")
"""What people write between the names of a list's items: `a, b`, `a - b`, `a b`, `a--b`, `a-b`."""


class ListOf(NamedTuple):
    """A list of items of one shape; single: one item may stand there without brackets. The value is list[Item]."""

    item: Shape
    minimum: int = 0
    maximum: int | None = None
    single: bool = False

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        if not isinstance(node, SequenceNode):
            if self.single and not _is_null(node):
                one = self.item.read(reader, node, path)
                return None if one is None else Item([one], node, path, one.broken)
            if self.minimum == 0 and _is_null(node):
                return Item([], node, path)
            meant = self.meant(reader, node, path)
            hint = "" if meant is None else f"put it in brackets: {flow(meant)}"
            reader.problem(node, path, f"expected a list, found {kind_of(node)}", hint)
            return None
        reader.check_tag(node, path)
        items = [self.item.read(reader, child, f"{path}[{index}]") for index, child in enumerate(node.value)]
        read = [item for item in items if item is not None]
        if len(items) < self.minimum or (self.maximum is not None and len(items) > self.maximum):
            count = f"at least {self.minimum}" if len(items) < self.minimum else f"at most {self.maximum}"
            count = f"exactly {self.minimum}" if self.minimum == self.maximum else count
            reader.problem(node, path, f"expected {count}, found {len(items)}")
        return Item(read, node, path, len(read) < len(items) or any(item.broken for item in read))

    def meant(self, reader: Reader, node: Node, path: str) -> Node | None:
        """The list that something else was to be: of it alone, or of the names in it; None where it is neither."""
        made = [SequenceNode(UNTAGGED, [node], node.start_mark, node.end_mark)]
        if isinstance(node, ScalarNode) and len(node.value) <= MAX_MESSAGE:
            split = (re.split(separator, node.value) for separator in _SEPARATORS)
            for names in (each for each in split if all(name.partition(":")[0] in reader.names for name in each)):
                words = [ScalarNode(node.tag, name, node.start_mark, node.end_mark) for name in names]
                made.append(SequenceNode(UNTAGGED, words, node.start_mark, node.end_mark))
        if isinstance(node, MappingNode) or _is_null(node):
            return None
        return next((each for each in made if accepts(reader, self, each, path)), None)

    def schema(self) -> JsonSchema:
        item = self.item.schema()
        result: JsonSchema = {"type": ["array", "null"] if self.minimum == 0 else "array", "items": item}
        if self.minimum:
            result["minItems"] = self.minimum
        if self.maximum is not None:
            result["maxItems"] = self.maximum
        return {"anyOf": [item, result]} if self.single else result


class Key(NamedTuple):
    """A key of a mapping: the shape of its value and a line of documentation, shown by editors and in hints.

    kind, default and example are for tables of keys in a page, in its own notation; example is a line of YAML.
    """

    shape: Shape
    doc: str
    required: bool = False
    kind: str = ""
    default: str = ""
    example: str = ""

    def said(self) -> str:
        """The documentation with the default, where that is known."""
        return f"{self.doc} (default: {self.default})" if self.default else self.doc


class Fields:
    """A mapping with known keys; the value is dict[str, Item].

    short turns a scalar into the text of several keys (`client:eth0`); short_doc says how that is written. any_of are
    keys of which one at least must be there.
    """

    def __init__(
        self,
        keys: Mapping[str, Key],
        short: Callable[[str], dict[str, str]] | None = None,
        short_doc: str = "",
        any_of: tuple[str, ...] = (),
    ) -> None:
        self.keys = keys
        self.any_of = any_of
        self.short = short
        self.short_doc = short_doc
        self.required = tuple(name for name, key in keys.items() if key.required)

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        if isinstance(node, MappingNode):
            return self._read_mapping(reader, node, path)
        if _is_null(node) and not self.required:
            return Item({}, node, path)
        if self.short is not None and isinstance(node, ScalarNode) and not _is_null(node):
            return self._read_short(reader, node, path, self.short)
        expected = f"a mapping or text like {self.short_doc}" if self.short else "a mapping"
        meant = self._meant(reader, node, path)
        hint = "" if meant is None else f"write {flow(meant)}"
        reader.problem(node, path, f"expected {expected}, found {kind_of(node)}", hint)
        return None

    def _other_key(self, name: str, there: Collection[str]) -> str:
        """The hint for a key that isn't known; never to write one that is there already."""
        near = nearest(name.lower(), self.keys)
        return f"{near!r} is there already" if near in there else suggest(name, self.keys)

    def _meant(self, reader: Reader, node: Node, path: str) -> Node | None:
        """The mapping that a value was to be which stands there without its only required key."""
        if _is_null(node) or len(self.required) != 1:
            return None
        shape = self.keys[self.required[0]].shape
        values = [node, shape.meant(reader, node, path) if isinstance(shape, ListOf) else None]
        for value in values:
            if value is not None:
                key = ScalarNode(UNTAGGED, self.required[0], node.start_mark, node.end_mark)
                made = MappingNode(UNTAGGED, [(key, value)], node.start_mark, node.end_mark)
                if accepts(reader, self, made, path):
                    return made
        return None

    def _read_mapping(self, reader: Reader, node: MappingNode, path: str) -> Item:
        there = {key.value for key, _ in reader.pairs(node, path)}
        fields: dict[str, Item] = {}
        failed: set[str] = set()
        broken = False
        for key_node, value_node in reader.pairs(node, path):
            name = key_node.value
            inner = f"{path}.{name}" if path else name
            key = self.keys.get(name)
            if key is None:
                reader.problem(key_node, inner, f"unknown key {name!r}", self._other_key(name, there))
                broken = True
                continue
            item = key.shape.read(reader, value_node, inner)
            if item is None:
                failed.add(name)
            else:
                fields[name] = item
                broken = broken or item.broken
        for name in self.required:
            if name not in fields and name not in failed:
                failed.add(name)
                reader.problem(node, path, f"the key {name!r} is missing", f"{name}: {self.keys[name].doc}")
        if self.any_of and not {*fields, *failed} & {*self.any_of}:
            broken = True
            reader.problem(node, path, "it says nothing", f"at least one of {', '.join(self.any_of)}")
        return Item(fields, node, path, broken or bool(failed))

    def _read_short(
        self, reader: Reader, node: ScalarNode, path: str, short: Callable[[str], dict[str, str]]
    ) -> Item | None:
        scalar = reader.text(node, path)
        if scalar is None:
            return None
        try:
            texts = short(scalar[0])
        except InvalidError as invalid:
            reader.problem(node, path, invalid.message, invalid.hint)
            return None
        fields: dict[str, Item] = {}
        for name, text in texts.items():
            part = ScalarNode(node.tag, text, node.start_mark, node.end_mark, style=node.style)
            item = self.keys[name].shape.read(reader, part, path)
            if item is not None:
                fields[name] = item
        return Item(fields, node, path, len(fields) < len(texts))

    def schema(self) -> JsonSchema:
        result: JsonSchema = {
            "type": "object" if self.required else ["object", "null"],
            "properties": {name: {"description": key.said(), **key.shape.schema()} for name, key in self.keys.items()},
            "additionalProperties": False,
        }
        if self.required:
            result["required"] = list(self.required)
        if self.any_of:
            result["anyOf"] = [{"required": [name]} for name in self.any_of]
        if self.short is None:
            return result
        return {"anyOf": [{"type": "string", "description": self.short_doc}, result]}


class MapOf(NamedTuple):
    """A mapping with keys of the user's own, checked by `name`; the value is dict[str, Item].

    may_add: `--set` may name a key that isn't there yet. minimum and maximum are how many there may be.
    """

    item: Shape
    name: Callable[[str], object] | None = None
    pattern: str | None = None
    may_add: bool = False
    minimum: int = 0
    maximum: int | None = None

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        if not isinstance(node, MappingNode):
            if _is_null(node) and not self.minimum:
                return Item({}, node, path)
            reader.problem(node, path, f"expected a mapping, found {kind_of(node)}")
            return None
        if self.maximum is not None and len(node.value) > self.maximum:
            reader.problem(node, path, f"expected at most {self.maximum:,}, found {len(node.value):,}")
            return None
        items: dict[str, Item] = {}
        broken = False
        for key_node, value_node in reader.pairs(node, path):
            name = key_node.value
            inner = join(path, name)
            try:
                if self.name is not None:
                    self.name(name)
            except InvalidError as invalid:
                reader.problem(key_node, inner, invalid.message, invalid.hint)
                broken = True
            item = self.item.read(reader, value_node, inner)
            if item is None and isinstance(self.item, Fields):
                item = Item({}, value_node, inner, broken=True)  # whoever refers to the name is right all the same
            if item is None:
                broken = True
            else:
                items[name] = item
                broken = broken or item.broken
        if len(node.value) < self.minimum:
            reader.problem(node, path, "expected at least one, found none")
        return Item(items, node, path, broken)

    def schema(self) -> JsonSchema:
        result: JsonSchema = {
            "type": "object" if self.minimum else ["object", "null"],
            "additionalProperties": self.item.schema(),
        }
        if self.pattern is not None:
            result["propertyNames"] = {"pattern": self.pattern}
        if self.minimum:
            result["minProperties"] = self.minimum
        if self.maximum is not None:
            result["maxProperties"] = self.maximum
        return result


class Kinds(NamedTuple):
    """A mapping whose key `kind` decides which other keys it has; the value is dict[str, Item].

    definition names it among the JSON Schema's definitions, since it is long and used several times.
    """

    what: str
    kinds: Mapping[str, Fields]
    definition: str

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        if not isinstance(node, MappingNode):
            reader.problem(node, path, f"expected a mapping, found {kind_of(node)}")
            return None
        kind_node = next((value for key, value in reader.pairs(node, path) if key.value == "kind"), None)
        if kind_node is None:
            reader.problem(node, path, "the key 'kind' is missing", f"kind: {' or '.join(self.kinds)}")
            return None
        kind = Choice(self.what, tuple(self.kinds)).read(reader, kind_node, join(path, "kind"))
        return None if kind is None else self.kinds[kind.value].read(reader, node, path)

    def schema(self) -> JsonSchema:
        return {"$ref": f"#/definitions/{self.definition}"}

    def body(self) -> JsonSchema:
        """What stands under definitions."""
        return {"anyOf": [fields.schema() for fields in self.kinds.values()]}
