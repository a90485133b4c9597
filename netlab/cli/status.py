"""`netlab status`: the labs that are up, or one of them; and the command's plain forms read without typer, as `up.py`
does it: what is asked most often is to cost little."""

from collections.abc import Sequence
from typing import NamedTuple

from netlab.cli.arguments import find_lab
from netlab.terminal import list_columns, write


class Options(NamedTuple):
    """What `status` is told: a lab, None for all; `text` or `json`."""

    lab: str | None = None
    output: str = "text"


def plain(words: Sequence[str]) -> Options | None:
    """What the words after `netlab status` stand for; None where typer has to say."""
    options = Options()
    while words:
        match words:
            case ["--format", "text" | "json" as output, *words]:
                options = options._replace(output=output)
            case [word, *words] if options.lab is None and word != "" and not word.startswith("-"):
                options = options._replace(lab=word)
            case _:
                return None
    return options


def show(options: Options) -> None:
    """Print it; LabError, UsageError."""
    from netlab.lab.overview import detail, overview

    lab, output = options
    width = list_columns()
    write(overview(output, width) if lab is None else detail(*find_lab(lab), output, width))
