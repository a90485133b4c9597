"""YAML text to nodes with positions: syntax, and how much of it there may be.

Scalars stay text: what `80` or `yes` means is decided by the key it stands under (`shapes.py`), so that no address, MAC
or port mapping is ever mistaken for a number. What the nodes say is read by `document.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import yaml
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

from netlab.errors import Problem, TopologyError
from netlab.yamlspec.limits import MAX_DEPTH, MAX_DIRECTIVES, MAX_NODES, shortened

UNTAGGED = "tag:yaml.org,2002:str"

_Base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class _TooDeepError(ComposerError):
    """Nesting deeper than MAX_DEPTH."""


class _TooManyError(Exception):
    """More than MAX_NODES: the first beyond is in what begins at place."""

    def __init__(self, place: yaml.Mark) -> None:
        super().__init__(place)
        self.place = place


class _Bounded:
    """What makes of one of PyYAML's loaders one that resolves no scalar's type, and refuses deep nesting and too much.

    It counts before a node is made: so memory ends here, and not in the tree.
    """

    depth = 0
    nodes = 0

    def descend_resolver(self, current_node: Node, current_index: object) -> None:  # noqa: ARG002
        self.depth += 1
        self.nodes += 1
        if self.depth > MAX_DEPTH:
            raise _TooDeepError(None, None, f"nested more than {MAX_DEPTH} levels deep", current_node.start_mark)
        if self.nodes > MAX_NODES:
            raise _TooManyError(current_node.start_mark)

    def ascend_resolver(self) -> None:
        self.depth -= 1

    def resolve(self, kind: type[Node], value: object, implicit: object) -> str:  # noqa: ARG002
        return UNTAGGED


class _Loader(_Bounded, _Base):  # type: ignore[misc]  # the C loader where PyYAML has it, at three times the speed
    """The loader in use."""


class Document(NamedTuple):
    """A document's root, and how many nodes it stands for, those of an alias counted each time it is used."""

    root: Node
    nodes: int


@lru_cache(maxsize=2)
def compose(text: str, file: str) -> Document:
    """A document's nodes, which nobody may change: the last ones are remembered.

    TopologyError where it isn't YAML, is empty, holds several documents, or is more than is read of any (`limits.py`).
    """
    return composed(text, file)


def composed(text: str, file: str) -> Document:
    """A document's nodes as `compose` has them, new each time."""

    def refused(line: int, column: int, message: str, hint: str = "") -> TopologyError:
        return TopologyError(file, [Problem(line, column, "", shortened(message), shortened(hint))])

    if text.count("\n%") > MAX_DIRECTIVES:
        raise refused(1, 1, f"more than {MAX_DIRECTIVES} lines begin with %", "a topology needs no %TAG")
    try:
        loader = _Loader(text)
        node: Node | None = loader.get_single_node()
    except ReaderError as error:
        raise refused(text[: error.position].count("\n") + 1, 1, f"not YAML: {error.reason}") from None
    except _TooManyError as error:
        raise refused(error.place.line + 1, error.place.column + 1, *_TOO_MANY) from None
    except yaml.MarkedYAMLError as error:
        raise refused(*_syntax_problem(_too_deep_before(error, text) or error, text)) from None
    except UnicodeEncodeError as error:
        line = text[: error.start].count("\n") + 1
        raise refused(line, 1, "not YAML: a character that UTF-8 can't hold") from None
    except ValueError:  # of PyYAML's own loader, that of libyaml tells the place
        raise refused(1, 1, r"not YAML: an escape (\U…) of no character") from None
    if node is None:
        raise refused(1, 1, "the file is empty", "a lab needs at least namespaces: {name: {}}")
    return Document(node, _expanded(node, file) if "&" in text and "*" in text else loader.nodes)


_TOO_MANY = (
    f"the file has more than {MAX_NODES:,} keys, values and list items",
    "those of an alias (*name) count each time it is used",
)


def _expanded(root: Node, file: str) -> int:
    """How many nodes a document stands for; TopologyError beyond MAX_NODES or MAX_DEPTH, or where that is no number.

    An alias comes after its anchor, so each node is measured before it is used again, or is still open: then it stands
    inside itself. A mapping that is merged into itself is told with its path (`document.py`).
    """
    measured: dict[int, tuple[int, int]] = {}
    unfinished: set[int] = set()

    def refused(node: Node, message: str, hint: str) -> TopologyError:
        mark = node.start_mark
        return TopologyError(file, [Problem(mark.line + 1, mark.column + 1, "", message, hint)])

    def merged(key: Node, value: Node) -> Iterator[Node]:
        named = key.value == "<<" and not key.style if isinstance(key, ScalarNode) else False
        sources = value.value if named and isinstance(value, SequenceNode) else [value]
        yield from (source for source in sources if not (named and id(source) in unfinished))

    def measure(node: Node) -> tuple[int, int]:
        if id(node) in measured:
            return measured[id(node)]
        if id(node) in unfinished:
            raise refused(node, "an alias of it stands inside of it", "write out what is meant there")
        unfinished.add(id(node))
        inner: list[Node] = []
        if isinstance(node, MappingNode):
            for key, value in node.value:
                inner += (key, *merged(key, value))
        elif isinstance(node, SequenceNode):
            inner = node.value
        nodes = depth = 1
        for more, deeper in map(measure, inner):
            nodes, depth = nodes + more, max(depth, deeper + 1)
        if nodes > MAX_NODES:
            raise refused(node, *_TOO_MANY)
        if depth > MAX_DEPTH:
            raise refused(node, f"its aliases nest it more than {MAX_DEPTH} levels deep", "")
        unfinished.discard(id(node))
        measured[id(node)] = nodes, depth
        return nodes, depth

    return measure(root)[0]


def is_experiment(root: Node) -> bool:
    """Whether a document's root is that of an experiment, and not of a topology."""
    pairs = root.value if isinstance(root, MappingNode) else []
    keys = {key.value for key, _ in pairs if isinstance(key, ScalarNode)}
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


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> tuple[int, int, str, str]:
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
    return line + 1, column + 1, message, hint
