"""The shape of a command: a list of words, or one text that is split as a shell splits it, and run by none. Pure."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from yaml.nodes import Node, SequenceNode

from netlab.yamlspec.document import Item, Reader
from netlab.yamlspec.limits import MAX_COMMAND
from netlab.yamlspec.shapes import JsonSchema, ListOf, Text, scalar_of

_QUOTED = r"""'[^']*'|"(?:\\.|[^"\\])*"|\\."""
_SHELL = r"&&|\|\||>>|[;&|<>`]|\$[A-Za-z_{(][A-Za-z_]*"
"""What means something to a shell, outside quotes."""


class Command(NamedTuple):
    """A command: a list of words, or one text that is split as a shell splits it. The value is tuple[str, ...]."""

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        import shlex

        if isinstance(node, SequenceNode):
            words = ListOf(Text(numbers=True)).read(reader, node, path)
            argv = () if words is None else tuple(item.value for item in words.value)
            if words is not None and words.broken:
                return None
        else:
            scalar = scalar_of(reader, node, path, "a command (text or a list)")
            if scalar is None:
                return None
            if len(scalar[0]) > MAX_COMMAND:
                reader.problem(node, path, f"the command has {len(scalar[0]):,} characters", f"at most {MAX_COMMAND:,}")
                return None
            try:
                argv = tuple(shlex.split(scalar[0]))
            except ValueError as error:
                reader.problem(node, path, f"not a command: {str(error).lower()}", "write it as a list of words")
                return None
            found = re.search(_SHELL, re.sub(_QUOTED, "", scalar[0]))
            if found is not None:
                message = f"no shell runs the command: {found[0]!r} is only text in it"
                reader.warn(node, path, message, f"write [sh, -c, {json.dumps(scalar[0], ensure_ascii=False)}]")
        if not argv or not argv[0]:
            reader.problem(node, path, "the command is empty")
            return None
        if any(len(word) > MAX_COMMAND for word in argv):
            reader.problem(node, path, f"a word of the command has more than {MAX_COMMAND:,} characters")
            return None
        if any("\0" in word for word in argv):
            reader.problem(node, path, "a command can't hold a NUL character")
            return None
        return Item(argv, node, path)

    def schema(self) -> JsonSchema:
        words = {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]}}
        return {"anyOf": [{"type": "string"}, words]}
