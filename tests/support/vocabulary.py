"""The vocabulary of experiments in docs/experiments.md: `python tests/support/vocabulary.py` puts it there anew."""

from __future__ import annotations

from typing import Any

from places import DOCS

from netlab.experiments.conditions import conditions
from netlab.experiments.language import EXPERIMENT
from netlab.experiments.stimuli import stimuli
from netlab.yamlspec.command import Command
from netlab.yamlspec.shapes import Boolean, Choice, Fields, Integer, ListOf, MapOf, Seconds, Shape, Text

HEAD = "| {} | type | required | meaning |\n|---|---|---|---|"
_MANY = 10**6
"""Who writes a number needs no such limit said."""

PAGE = DOCS / "experiments.md"


def keys(fields: Fields) -> list[str]:
    """The rows of a table of keys."""
    return [
        f"| `{name}` | {_type(key.shape)} | {'yes' if key.required else ''} | {key.doc} |".replace("|  |", "| |")
        for name, key in fields.keys.items()
    ]


def _type(shape: Shape) -> str:
    match shape:
        case Text(what=what):
            return what
        case Choice(words=words):
            return ", ".join(f"`{word}`" for word in words)
        case Integer(minimum=minimum, maximum=maximum):
            return "a whole number" if maximum >= _MANY else f"{minimum} to {maximum}"
        case Seconds():
            return "seconds"
        case Boolean():
            return "`true`, `false`"
        case ListOf(item=item, single=single):
            one = _type(item)
            return f"{one}, or a list" if single else f"a list of {one}"
        case MapOf():
            return "a mapping"
        case Command():
            return "text or a list"
    return "steps"


def text() -> str:
    """Every stimulus and every condition with its arguments."""
    lines = ["", "## Stimuli", ""]
    for name, stimulus in stimuli().items():
        lines += _verb(name, stimulus)
    lines += ["## Conditions", ""]
    for name, condition in conditions().items():
        lines += _verb(name, condition)
    return "".join(f"{line}\n" for line in lines)


def _verb(name: str, verb: Any) -> list[str]:
    fields: Fields = verb.ARGUMENTS
    doc = verb.DOC[0].upper() + verb.DOC[1:]
    lines = [f"### {name}", "", f"{doc}.", ""]
    if fields.short is not None:
        lines += [f"In short: `{name}: {fields.short_doc.partition(' ')[0]}`.", ""]
    if fields.keys:
        lines += [HEAD.format("argument"), *keys(fields), ""]
    return lines


def put(page: str) -> str:
    """The page with the vocabulary, and the document's keys, in their places."""
    for name, found in (
        ("vocabulary", text()),
        ("keys", "\n".join(["", HEAD.format("key"), *keys(EXPERIMENT), "", ""])),
    ):
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
        before, _, rest = page.partition(begin)
        page = before + begin + found + end + rest.partition(end)[2]
    return page


if __name__ == "__main__":
    PAGE.write_text(put(PAGE.read_text()))
