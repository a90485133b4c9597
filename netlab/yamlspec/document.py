"""Reading a document's nodes: duplicate keys, merge keys, variables, and the list of problems.

How text becomes nodes is `compose.py`'s, what a value may be `shapes.py`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from typing import Any, NoReturn

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from netlab.errors import Problem, TopologyError
from netlab.yamlspec.compose import UNTAGGED
from netlab.yamlspec.limits import MAX_KEY, MAX_PROBLEMS, MAX_SUGGESTED, MAX_VARIABLES, shortened

VARIABLE = re.compile(r"\$(\$?)\{([^{}]*)\}")


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


class RefusedError(Exception):
    """A trial has found a problem."""


class Reader:
    """Reads nodes of one document and keeps its problems. file names the document in the error that its problems become
    where there are more than are told. variables are what `${name}` stands for; names are those that the document gives
    to what others refer to."""

    def __init__(self, file: str = "", *, trial: bool = False) -> None:
        self.file = file
        self.names: Collection[str] = ()
        self.variables: dict[str, ScalarNode] = {}
        self._trial = trial
        self._problems: dict[tuple[int, int, str], Problem] = {}
        self._warnings: dict[tuple[int, int, str], Problem] = {}
        self._pairs: dict[
            int, tuple[Node, list[tuple[ScalarNode, Node]]]
        ] = {}  # the node too: its id must stay its own
        self._merging: set[int] = set()
        self._expanded = 0

    @property
    def problems(self) -> list[Problem]:
        """What was found so far, each thing once even where an alias repeats its node."""
        return list(self._problems.values())

    @property
    def warnings(self) -> list[Problem]:
        """What is allowed, and hardly meant, in the order of the lines."""
        return sorted(self._warnings.values())

    def problem(self, node: Node, path: str, message: str, hint: str = "") -> None:
        """Note one problem at a node's place; TopologyError once there are more than MAX_PROBLEMS."""
        if self._trial:
            raise RefusedError
        self._note(self._problems, node, path, message, hint)
        if len(self._problems) > MAX_PROBLEMS:
            told = self.problems[:-1]
            last = max(told)
            more = Problem(last.line, last.column, "", f"these {MAX_PROBLEMS} problems are not all", "mend them first")
            raise TopologyError(self.file, [*told, more])

    def warn(self, node: Node, path: str, message: str, hint: str) -> None:
        """Note at a node's place what is allowed and hardly meant; MAX_PROBLEMS of it at most."""
        if len(self._warnings) < MAX_PROBLEMS:
            self._note(self._warnings, node, path, message, hint)

    @staticmethod
    def _note(noted: dict[tuple[int, int, str], Problem], node: Node, path: str, message: str, hint: str) -> None:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        made = Problem(line, column, shortened(path), shortened(message), shortened(hint))
        noted.setdefault((line, column, made.message), made)

    def trial(self) -> Reader:
        """A reader of the same document that raises RefusedError at the first problem: to see whether there is one."""
        reader = Reader(trial=True)
        reader.variables, reader.names, reader._expanded = self.variables, self.names, self._expanded
        return reader

    def at(self, item: Item, message: str, hint: str = "") -> None:
        """Note one problem at an item's place."""
        self.problem(item.node, item.path, message, hint)

    def refuse(self, item: Item, message: str, hint: str = "") -> NoReturn:
        """Note one problem, which makes what follows senseless; TopologyError with those found so far."""
        self.at(item, message, hint)
        raise TopologyError(self.file, self.problems)

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
            return known[1]
        self.check_tag(node, path)
        pairs: dict[str, tuple[ScalarNode, Node]] = {}
        merges: list[Node] = []
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self.problem(key, path, "a key must be text", 'put braces or brackets in quotes: "{...}"')
            elif len(key.value) > MAX_KEY:
                self.problem(key, path, f"the key has {len(key.value):,} characters", f"at most {MAX_KEY}")
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
        end, missing = 0, set[str]()
        for match in VARIABLE.finditer(node.value):
            parts.append(node.value[end : match.start()])
            end = match.end()
            if match[1]:  # $${name} is a literal ${name}
                parts.append(match[0][1:])
            elif match[2] in missing:
                continue
            elif (variable := self._variable(match[2], node, path)) is not None:
                parts.append(variable.value)
            else:
                missing.add(match[2])
        parts.append(node.value[end:])
        return None if missing else ("".join(parts), False)

    def _variable(self, name: str, node: Node, path: str) -> ScalarNode | None:
        variable = self.variables.get(name)
        if self._expanded > MAX_VARIABLES:  # which is told already
            return None
        if variable is None:
            near = nearest(name, self.variables)
            hint = f"did you mean {near!r}?" if near else "name it under vars, above its first use there"
            hint += "; $${" + name + "} is the text itself"
            self.problem(node, path, f"no variable is called {name!r}", hint)
            return None
        self._expanded += len(variable.value)
        if self._expanded > MAX_VARIABLES:
            message = f"the variables stand for more than {MAX_VARIABLES:,} characters"
            self.problem(node, path, message, "a variable of variables doubles with each step")
            return None
        return variable


def join(path: str, key: str) -> str:
    """The path of a key inside a path: `links[0]` and `mtu` make `links[0].mtu`."""
    return f"{path}.{key}" if path else key


_COMPARED = 50
"""Words that are compared letter by letter, at about 0.1 ms each."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, if any is and there are no more than MAX_SUGGESTED of them."""
    import difflib  # only problems need it

    words = list(known)
    if len(words) > MAX_SUGGESTED or len(word) > MAX_KEY:
        return None

    if len(words) > _COMPARED:  # those that have most letters in common at their beginnings and ends
        words.sort(key=lambda other: _together(word, other) + _together(word[::-1], other[::-1]), reverse=True)
        del words[_COMPARED:]
    close = difflib.get_close_matches(word, words, cutoff=_LIKE)
    return next((other for other in close if _like(word, other)), None)


_LIKE, _MUCH_LIKE = 0.6, 0.7
"""How much of two words agrees (difflib's ratio) where they are about as long, and where they aren't."""


def _like(one: str, other: str) -> bool:
    """Whether one word may be written for the other: misspelt, or as the longer word that it is short for."""
    import difflib

    def agrees(a: str, b: str) -> float:
        return difflib.SequenceMatcher(None, a, b).ratio()

    parts = [one.split("_"), other.split("_")]
    if len(parts[0]) == len(parts[1]) > 1:  # masquerade_all is another thing than masquerade_pods
        return all(agrees(a, b) >= _LIKE for a, b in zip(*parts, strict=True))
    if agrees(one, other) >= (_LIKE if abs(len(one) - len(other)) <= 1 else _MUCH_LIKE):
        return True
    short, long = sorted((one, other), key=len)
    letters = iter(long)
    return short[:3] == long[:3] and all(letter in letters for letter in short)


def _together(one: str, other: str) -> int:
    """How many letters two words have in common at their beginnings."""
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return number
    return min(len(one), len(other))


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
    shown = value if len(value) <= 40 else value[:37] + "..."
    if plain and INTEGER.fullmatch(value):
        return f"the whole number {shown}"
    if plain and FLOAT.fullmatch(value):
        return f"the number {shown}"
    if plain and value in BOOLEANS:
        return value.lower()
    return f"the text {shown!r}"


# YAML 1.2's core schema (section 10.3.2), which editors use too: `yes` and `12:30` are text.
NULLS = frozenset({"", "~", "null", "Null", "NULL"})
BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
