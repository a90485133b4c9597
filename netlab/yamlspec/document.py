"""YAML text to nodes, and reading nodes: syntax, duplicate keys, merge keys, variables, and the list of problems.

Scalars stay text here: what `80` or `yes` means is decided by the key it stands under (`shapes.py`), so that no
address, MAC or port mapping is ever mistaken for a number. What the keys are is `language.py`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

from netlab.errors import Problem, TopologyError

MAX_DEPTH = 64
"""Deepest nesting read. The language needs 8; libyaml's composer recurses, and some 10,000 levels end the process."""

MAX_ITEMS = 250_000
"""Most keys and list items read, aliases counted each time they are used: a few nested aliases can mean billions."""

UNTAGGED = "tag:yaml.org,2002:str"
VARIABLE = re.compile(r"\$(\$?)\{([^{}]*)\}")

_Base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class _TooDeepError(ComposerError):
    """Nesting deeper than MAX_DEPTH."""


class _Shallow:
    """What makes of one of PyYAML's loaders one that resolves no scalar's type and refuses deep nesting."""

    depth = 0

    def descend_resolver(self, current_node: Node, current_index: object) -> None:  # noqa: ARG002
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _TooDeepError(None, None, f"nested more than {MAX_DEPTH} levels deep", current_node.start_mark)

    def ascend_resolver(self) -> None:
        self.depth -= 1

    def resolve(self, kind: type[Node], value: object, implicit: object) -> str:  # noqa: ARG002
        return UNTAGGED


class _Loader(_Shallow, _Base):  # type: ignore[misc]  # the C loader where PyYAML has it, at three times the speed
    """The loader in use."""


class Item:
    """A value that was read and the place it came from. broken: a part of it had a problem and is left out."""

    def __init__(self, value: Any, node: Node, path: str, broken: bool = False) -> None:
        self.value = value
        self.node = node
        self.path = path
        self.broken = broken

    def __contains__(self, key: str) -> bool:
        return key in self.value

    def __getitem__(self, key: str) -> Item:
        item: Item = self.value[key]
        return item

    def get(self, key: str, default: Any = None) -> Any:
        """The plain value under key, or default where the key was left out."""
        item = self.value.get(key)
        return default if item is None else item.value

    @property
    def line(self) -> int:
        """The line in the file, from 1; 0 is a value given with `--set`."""
        return int(self.node.start_mark.line) + 1


class TooLargeError(Exception):
    """The document has more than MAX_ITEMS items once its aliases are followed."""


def too_large(file: str) -> TopologyError:
    """What is told of a document that raised TooLargeError."""
    hint = f"its aliases repeat more than {MAX_ITEMS:,} values"
    return TopologyError(file, [Problem(1, 1, "", "the file stands for too much", hint)])


class Reader:
    """Reads nodes of one document and keeps its problems. variables are what `${name}` stands for; names are those that
    the document gives to what others refer to."""

    def __init__(self) -> None:
        self.names: Collection[str] = ()
        self.variables: dict[str, ScalarNode] = {}
        self._problems: dict[tuple[int, int, str], Problem] = {}
        self._warnings: dict[tuple[int, int, str], Problem] = {}
        self._pairs: dict[
            int, tuple[Node, list[tuple[ScalarNode, Node]]]
        ] = {}  # the node too: its id must stay its own
        self._merging: set[int] = set()
        self._items = 0

    @property
    def problems(self) -> list[Problem]:
        """What was found so far, each thing once even where an alias repeats its node."""
        return list(self._problems.values())

    @property
    def warnings(self) -> list[Problem]:
        """What is allowed, and hardly meant, in the order of the lines."""
        return sorted(self._warnings.values())

    def problem(self, node: Node, path: str, message: str, hint: str = "") -> None:
        """Note one problem at a node's place."""
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        self._problems.setdefault((line, column, message), Problem(line, column, path, message, hint))

    def warn(self, node: Node, path: str, message: str, hint: str) -> None:
        """Note at a node's place what is allowed and hardly meant."""
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        self._warnings.setdefault((line, column, message), Problem(line, column, path, message, hint))

    def trial(self) -> Reader:
        """A reader of the same document whose problems are nobody's: to see whether something would be read."""
        reader = Reader()
        reader.variables, reader.names = self.variables, self.names
        return reader

    def at(self, item: Item, message: str, hint: str = "") -> None:
        """Note one problem at an item's place."""
        self.problem(item.node, item.path, message, hint)

    def count(self, items: int) -> None:
        """Count items read; TooLargeError beyond MAX_ITEMS."""
        self._items += items
        if self._items > MAX_ITEMS:
            raise TooLargeError

    def read_variables(self, root: Node, path: str = "") -> None:
        """Take the values under `vars` of the mapping at path, in order: each may use those before it."""
        sections = self.pairs(root, path) if isinstance(root, MappingNode) else []
        section = next((value for key, value in sections if key.value == "vars"), None)
        inner = join(path, "vars")
        for key, value in self.pairs(section, inner) if isinstance(section, MappingNode) else []:
            if not isinstance(value, ScalarNode):
                continue  # the wrong type is reported with the rest of the language's
            text = self.text(value, join(inner, key.value))
            if text is not None:
                style = None if text[1] else '"'
                self.variables[key.value] = ScalarNode(UNTAGGED, text[0], value.start_mark, value.end_mark, style)

    def pairs(self, node: MappingNode, path: str) -> list[tuple[ScalarNode, Node]]:
        """A mapping's keys and values, merge keys (`<<`) followed, each key once."""
        known = self._pairs.get(id(node))
        if known is not None:
            self.count(len(known[1]))
            return known[1]
        self.check_tag(node, path)
        pairs: dict[str, tuple[ScalarNode, Node]] = {}
        merges: list[Node] = []
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self.problem(key, path, "a key must be text", 'put braces or brackets in quotes: "{...}"')
            elif key.value == "<<" and not key.style:
                merges.append(value)
            elif key.value in pairs:
                first = pairs[key.value][0].start_mark.line + 1
                self.problem(
                    key, join(path, key.value), f"the key {key.value!r} is there twice (first in line {first})"
                )
            else:
                pairs[key.value] = key, value
        if merges:
            self._merging.add(id(node))
            for merge in merges:
                for key, value in self._merged(merge, path):
                    pairs.setdefault(key.value, (key, value))
            self._merging.discard(id(node))
        found = list(pairs.values())
        self._pairs[id(node)] = node, found
        self.count(len(found))
        return found

    def _merged(self, node: Node, path: str) -> Iterable[tuple[ScalarNode, Node]]:
        sources = node.value if isinstance(node, SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, MappingNode):
                self.problem(source, path, "<< merges mappings only", "write <<: *name, where &name marks a mapping")
            elif id(source) in self._merging:
                self.problem(source, path, "<< merges a mapping into itself")
            else:
                yield from self.pairs(source, path)

    def check_tag(self, node: Node, path: str) -> None:
        """A tag such as `!!int` would say what only the key decides: a problem."""
        if node.tag != UNTAGGED:
            self.problem(node, path, f"the tag {node.tag!r} means nothing here", "leave it out")

    def text(self, node: ScalarNode, path: str) -> tuple[str, bool] | None:
        """A scalar's text with variables put in, and whether it is plain (unquoted); None after a problem."""
        self.check_tag(node, path)
        if "${" not in node.value:
            return node.value, not node.style
        whole = VARIABLE.fullmatch(node.value)
        if whole and not whole[1]:
            variable = self._variable(whole[2], node, path)
            return None if variable is None else (variable.value, not variable.style)
        parts: list[str] = []
        end, complete = 0, True
        for match in VARIABLE.finditer(node.value):
            parts.append(node.value[end : match.start()])
            end = match.end()
            if match[1]:  # $${name} is a literal ${name}
                parts.append(match[0][1:])
            elif (variable := self._variable(match[2], node, path)) is not None:
                parts.append(variable.value)
            else:
                complete = False
        parts.append(node.value[end:])
        return ("".join(parts), False) if complete else None

    def _variable(self, name: str, node: Node, path: str) -> ScalarNode | None:
        variable = self.variables.get(name)
        if variable is None:
            near = nearest(name, self.variables)
            hint = f"did you mean {near!r}?" if near else "name it under vars, above its first use there"
            hint += "; $${" + name + "} is the text itself"
            self.problem(node, path, f"no variable is called {name!r}", hint)
        return variable


def compose(text: str, file: str) -> Node:
    """The root node of a document; TopologyError where it isn't YAML, is empty, or holds several documents."""
    try:
        node: Node | None = yaml.compose(text, Loader=_Loader)
    except ReaderError as error:
        found = text[: error.position].count("\n") + 1
        raise TopologyError(file, [Problem(found, 1, "", f"not YAML: {error.reason}")]) from None
    except yaml.MarkedYAMLError as error:
        raise TopologyError(file, [_syntax_problem(_too_deep_before(error, text) or error, text)]) from None
    except UnicodeEncodeError as error:
        line = text[: error.start].count("\n") + 1
        raise TopologyError(file, [Problem(line, 1, "", "not YAML: a character that UTF-8 can't hold")]) from None
    if node is None:
        hint = "a lab needs at least namespaces: {name: {}}"
        raise TopologyError(file, [Problem(1, 1, "", "the file is empty", hint)])
    return node


def is_experiment(root: Node) -> bool:
    """Whether a document's root is that of an experiment, and not of a topology."""
    keys = {key.value for key, _ in root.value} if isinstance(root, MappingNode) else set()
    return "namespaces" not in keys and ("steps" in keys or "claim" in keys)


def _too_deep_before(error: yaml.MarkedYAMLError, text: str) -> _TooDeepError | None:
    """The nesting that is too deep in what comes before a scanner's error, if there is any.

    PyYAML's scanner runs up to 1,024 characters ahead of the composer, and some versions have a limit of their own.
    """
    if not isinstance(error, ScannerError) or error.problem_mark is None:
        return None
    try:
        yaml.compose(text[: error.problem_mark.index], Loader=_Loader)
    except _TooDeepError as deeper:
        return deeper
    except yaml.YAMLError:
        pass
    return None


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    here = lines[line] if line < len(lines) else ""
    message, hint = f"not YAML: {error.problem}", ""
    if error.context == "expected a single document in the stream":
        message, hint = "a second document begins here", "keep one lab in one file, and no --- after the first line"
    elif here[column : column + 1] == "\t":
        message, hint = "not YAML: a tab", "indent with spaces"
    elif error.problem and error.problem.startswith("mapping values are not allowed"):
        hint = "text with ': ' in it goes in quotes; a key with others below it ends in ':'"
    elif error.context:
        started = error.context_mark
        place = f" that began in line {started.line + 1}" if started and started.line != line else ""
        hint = f"{error.context}{place}"
    return Problem(line + 1, column + 1, "", message, hint)


def join(path: str, key: str) -> str:
    """The path of a key inside a path: `links[0]` and `mtu` make `links[0].mtu`."""
    return f"{path}.{key}" if path else key


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, if any is."""
    import difflib  # only problems need it

    near = difflib.get_close_matches(word, known, n=1)
    return near[0] if near else None


def suggest(word: str, known: Iterable[str]) -> str:
    """The hint for a word that isn't known: the nearest known one, else all of them where they are few."""
    words = list(known)
    near = nearest(word.lower(), words)
    if near:
        return f"did you mean {near!r}?"
    return f"known: {', '.join(words)}" if 0 < len(words) <= 15 else ""


def flow(node: Node) -> str:
    """A node in one line, as it may be written in a file."""
    if isinstance(node, MappingNode):
        return "{" + ", ".join(f"{flow(key)}: {flow(value)}" for key, value in node.value) + "}"
    if isinstance(node, SequenceNode):
        return "[" + ", ".join(map(flow, node.value)) + "]"
    quoted = bool(getattr(node, "style", None)) or not re.fullmatch(r"[\w./-][\w./:-]*(?<!:)( [\w./-]+)*", node.value)
    return json.dumps(node.value, ensure_ascii=False) if quoted else str(node.value)


def kind_of(node: Node, text: str | None = None, plain: bool = False) -> str:
    """What a node is, for a message: `a list`, `the whole number 80`, `the text 'x'`."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    if text is None and isinstance(node, ScalarNode):
        text, plain = node.value, not node.style
    value = text or ""
    if plain and value in NULLS:
        return "nothing"
    if plain and INTEGER.fullmatch(value):
        return f"the whole number {value}"
    if plain and FLOAT.fullmatch(value):
        return f"the number {value}"
    if plain and value in BOOLEANS:
        return value.lower()
    shown = value if len(value) <= 40 else value[:37] + "..."
    return f"the text {shown!r}"


# YAML 1.2's core schema (section 10.3.2), which editors use too: `yes` and `12:30` are text.
NULLS = frozenset({"", "~", "null", "Null", "NULL"})
BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
