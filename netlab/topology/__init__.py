"""Topology files: YAML text to a Topology, or every problem of the file at once.

The way through: `yamlspec/` composes nodes and puts in what `--set` says, `language.py` lists the keys and their
shapes, `wiring.py` wires and addresses, `services.py` makes the Services, `resolve.py` joins it all. Nothing here
touches a kernel; `files.py` alone opens files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from netlab.errors import Problem, TopologyError, UsageError
from netlab.kubeproxy import fixes as builtin
from netlab.model import Topology
from netlab.topology import resolve, words
from netlab.topology.files import read_text
from netlab.topology.language import TOPOLOGY
from netlab.yamlspec.compose import compose, is_experiment
from netlab.yamlspec.document import Item, Reader, join
from netlab.yamlspec.limits import MAX_PROBLEMS, MAX_READ_AGAIN
from netlab.yamlspec.settings import apply, apply_fixes
from netlab.yamlspec.shapes import Fields, InvalidError

__all__ = [
    "Parsed",
    "default_name",
    "load",
    "load_with_fixes",
    "parse",
    "problem",
    "read",
    "read_text",
    "with_each_fix",
]


def read(path: str, settings: Sequence[tuple[str, str]] = (), name: str | None = None) -> tuple[str, Topology]:
    """The text of a topology file (`-` is stdin) and the lab it describes. UsageError where it can't be read."""
    text = read_text(path)
    return text, load(text, path, settings, name)


def load(
    text: str,
    file: str,
    settings: Sequence[tuple[str, str]] = (),
    name: str | None = None,
    fixes: Sequence[str] = (),
) -> Topology:
    """The lab that a topology's text describes. file names it in messages; its stem is the lab's default name.

    settings are `--set`'s (path, YAML value) pairs; name, if given, is the lab's name instead of the file's own. fixes
    are names: what those of them that the file defines set comes after the settings; other names mean nothing here.
    TopologyError holds all problems of the text together; UsageError says that name can't be a lab's.
    """
    return parse(text, file, settings, name, fixes).sound()


def load_with_fixes(
    text: str,
    file: str,
    settings: Sequence[tuple[str, str]],
    name: str | None,
    names: Sequence[str],
    warn: Callable[[Problem], None] | None = None,
) -> Topology:
    """The lab that a topology's text describes, with the named fixes: first those that the file defines, in the order
    given, then the built-in ones. TopologyError or UsageError, as `load` and `kubeproxy.fixes.apply` have them.

    warn is told what is allowed and hardly meant, where the text is sound.
    """
    parsed = parse(text, file, settings, name, names)
    made = parsed.sound()
    if warn is not None:
        for warning in parsed.reader.warnings:
            warn(warning)
    own = {fix.name for fix in made.fixes}
    return builtin.apply(made, [each for each in names if each not in own])


class Parsed(NamedTuple):
    """A topology's text that was read: its keys, and the lab, which is incomplete where the reader has problems."""

    file: str
    reader: Reader
    root: Item
    lab: Topology

    def sound(self) -> Topology:
        """The lab, if the reader has no problem; TopologyError."""
        if self.reader.problems:
            raise TopologyError(self.file, self.reader.problems)
        return self.lab


def parse(
    text: str,
    file: str,
    settings: Sequence[tuple[str, str]] = (),
    name: str | None = None,
    fixes: Sequence[str] = (),
    language: Fields = TOPOLOGY,
) -> Parsed:
    """Read a topology as `load` does, and keep its problems: for one who has more to say about the same text.

    language is that of `language.with_experiments` to one who knows experiments. TopologyError is for a text that isn't
    YAML, or no mapping of a topology's keys.
    """
    if name is not None:
        try:
            words.lab_name(name)
        except InvalidError as invalid:
            raise UsageError(invalid.message, invalid.hint) from None
    reader = Reader(file)
    document, nodes = compose(text, file)
    if is_experiment(document):
        hint = f"`netlab run {file}` runs it"
        raise TopologyError(file, [Problem(1, 1, "", "this is an experiment, not a topology", hint)])
    root = _changed(reader, document, settings, fixes, language)
    reader.read_variables(root)
    reader.names = _names(reader, root)
    item = language.read(reader, root, "")
    if item is None:
        raise TopologyError(file, reader.problems)
    _check_readings(reader, item, nodes)
    lab_name = name or item.get("name") or default_name(file)
    return Parsed(file, reader, item, resolve.topology(reader, item, lab_name))


def _check_readings(reader: Reader, root: Item, nodes: int) -> None:
    """Each fix and each experiment is tried in a lab of its own: what the file says is read so many times."""
    for section in ("fixes", "experiments"):
        count = len(root.get(section, ()))
        if count > 1 and count * nodes > MAX_READ_AGAIN:
            hint = f"at most {max(MAX_READ_AGAIN // nodes, 1)} in a topology with so many values ({nodes:,})"
            reader.refuse(root[section], f"these are {count:,} {section}", hint)


def _names(reader: Reader, root: Node) -> frozenset[str]:
    """The names of the namespaces."""
    sections = reader.pairs(root, "") if isinstance(root, MappingNode) else []
    section = next((value for key, value in sections if key.value == "namespaces"), None)
    pairs = reader.pairs(section, "namespaces") if isinstance(section, MappingNode) else []
    return frozenset(key.value for key, _ in pairs)


def _changed(
    reader: Reader, root: Node, settings: Sequence[tuple[str, str]], fixes: Sequence[str], language: Fields = TOPOLOGY
) -> Node:
    """The document with what `--set` and the named fixes of its own put there."""
    for path, value in settings:
        root = apply(reader, root, language, path, value)
    return apply_fixes(reader, root, language, fixes)


def with_each_fix(
    text: str,
    file: str,
    settings: Sequence[tuple[str, str]] = (),
    name: str | None = None,
    load: Callable[..., Topology] = load,
) -> dict[str, Topology]:
    """The lab without a fix (under "") and with each of those that the file defines, as `load` makes it.

    load takes the arguments of this room's. TopologyError has the problems of all of them, and says with which fix
    they come.
    """
    plain = load(text, file, settings, name)
    found = {"": plain}
    problems: list[Problem] = []
    for fix in plain.fixes:
        try:
            found[fix.name] = load(text, file, settings, name, [fix.name])
        except TopologyError as error:
            problems += [one._replace(message=f"with the fix {fix.name}: {one.message}") for one in error.problems]
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise TopologyError(file, problems)
    return found


def problem(
    text: str,
    file: str,
    settings: Sequence[tuple[str, str]],
    fixes: Sequence[str],
    path: Sequence[str | int],
    line: int,
    column: int,
    message: str,
) -> Problem:
    """A problem inside a text of a sound topology, found by someone else.

    path are the keys and indexes that lead to the text. line and column count from 1 in the text's value. They have a
    place in the file where the text is a block (`|`), of which YAML takes the indentation away; otherwise, and with
    line 0, the place is where the text begins.
    """
    reader = Reader(file)
    node, words_of_path = _changed(reader, compose(text, file).root, settings, fixes), ""
    for name in path:
        if isinstance(node, MappingNode):
            node = next(value for key, value in reader.pairs(node, "") if key.value == name)
        elif isinstance(node, SequenceNode) and isinstance(name, int):
            node = node.value[name]
        words_of_path = f"{words_of_path}[{name}]" if isinstance(name, int) else join(words_of_path, name)
    first = node.start_mark.line + 1
    place = first, node.start_mark.column + 1
    if isinstance(node, ScalarNode) and node.style == "|" and line and first:
        indented, plain = text.splitlines()[first + line - 1], node.value.splitlines()[line - 1]
        place = first + line, len(indented) - len(plain) + column
    elif isinstance(node, ScalarNode) and line and "\n" in node.value:
        message = f"in its line {line}: {message}"
    return Problem(*place, words_of_path, message)


def default_name(file: str) -> str:
    """A lab's name from its file's: the stem in small letters, `lab` where nothing of it can be kept."""
    stem = "" if file == "-" else Path(file).stem.lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[: words.LAB_NAME_MAX].rstrip("-") or "lab"
