"""The command line as typer has it: which file has which command, and the commands of those files together."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, ClassVar, NoReturn, cast

import typer

from netlab import __version__
from netlab.cli.group import Group
from netlab.escapes import Lines, line
from netlab.terminal import say, write

SECTIONS = {
    "Labs": {
        "up": "lifecycle",
        "down": "lifecycle",
        "status": "lifecycle",
        "exec": "exec",
        "shell": "exec",
        "fix": "fixing",
    },
    "Experiments": {"run": "run", "matrix": "matrix", "explain": "observing", "report": "report"},
    "Traffic": {"watch": "observing", "capture": "observing"},
    "Topologies": {
        "examples": "examples",
        "lint": "inspect",
        "plan": "inspect",
        "rules": "inspect",
        "schema": "inspect",
    },
    "netlab itself": {"doctor": "doctor", "help": "help"},
}
"""The file of each command, in the order of `netlab --help`."""

COMMANDS = {name: file for section in SECTIONS.values() for name, file in section.items()}


class _Program(Group):
    sections: ClassVar = {heading: tuple(section) for heading, section in SECTIONS.items()}


def app(command: str | None = None) -> typer.Typer:
    """The program with all its commands, or, which is quicker, with those that are in one file with the command called.

    What is no command (an option, a misspelt word, None) gets all of them, and so does `help`.
    """
    program = typer.Typer(
        name="netlab",
        cls=_Program,
        help="Build Linux network labs from YAML, make the kernel misbehave in them, and see why.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST},
    )
    program.callback()(_options)
    files = [COMMANDS[command]] if command in COMMANDS and command != "help" else COMMANDS.values()
    for file in dict.fromkeys(files):
        program.add_typer(import_module(f"{__package__}.{file}").app)
    return program


_WIDEST = 120
"""Columns of help on a terminal that has more."""


def _show_version(asked: bool) -> None:
    if asked:
        write(f"netlab {__version__} (netns-lab)\n")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


_USAGE_ERROR = cast(type[typer.BadParameter], typer.BadParameter.mro()[1])
"""What typer raises where the words don't fit a command: it exports one kind of it only."""


def run(words: Sequence[str]) -> NoReturn:
    """Run the command that the words call, and exit; SystemExit(2) with a message where they call none."""
    try:
        code = app(next(iter(words), None))(words, prog_name="netlab", standalone_mode=False)
    except _USAGE_ERROR as error:
        say(_complaint(error))
        code = 2
    sys.exit(code)


def _complaint(error: typer.BadParameter) -> Lines:
    """What is wrong with the words, of which each may hold anything, in a line; above it how to call the command."""
    context, message = error.ctx, error.format_message()
    if context is None:
        return Lines(f"Error: {line(message)}")
    if message == context.get_help():  # a group without a command
        return Lines(message)
    hint = f"Try '{context.command_path} {context.help_option_names[0]}' for help."
    return Lines(f"{context.get_usage()}\n{hint}\n\nError: {line(message)}")
