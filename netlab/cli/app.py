"""The command line as typer has it: which file has which command, and the commands of those files together."""

import os
import sys
from collections.abc import MutableMapping, Sequence
from importlib import import_module
from typing import Annotated, ClassVar, Final, NamedTuple, NoReturn, cast

import typer

from netlab import __version__
from netlab.cli.group import Group
from netlab.escapes import Lines, line
from netlab.terminal import say, write


class Entry(NamedTuple):
    """The file that a command is in, and what its help begins with: for the list of all, which needs no file."""

    file: str
    summary: str


SECTIONS = {
    "Labs": {
        "up": Entry("lifecycle", "Build a lab, or make the one that is up follow its topology."),
        "down": Entry("lifecycle", "Take a lab down."),
        "status": Entry("lifecycle", "List the labs that are up, or show what is in one."),
        "exec": Entry("exec", "Run a program in a namespace."),
        "shell": Entry("exec", "Open a shell in a namespace."),
        "logs": Entry("programs", "Show what a program of a lab has printed."),
        "restart": Entry("programs", "End a program of a lab, and start it again."),
        "fix": Entry("fixing", "List mitigations, or apply and revert them on a lab."),
    },
    "Experiments": {
        "run": Entry("run", "Run an experiment and say what the kernel did."),
        "matrix": Entry("matrix", "Run every experiment with every fix, and print one table."),
        "explain": Entry("observing", "Say why a connection was reset, packet by packet."),
        "report": Entry("report", "Show a run again, from its bundle."),
    },
    "Traffic": {
        "watch": Entry("observing", "Show what happens in a lab, an event a line."),
        "capture": Entry("observing", "Write the packets of several namespaces into a pcapng file."),
    },
    "Topologies": {
        "examples": Entry("examples", "List the topologies and experiments that come with netlab."),
        "lint": Entry("inspect", "Check a topology or an experiment."),
        "plan": Entry("inspect", "Print what `up` does, each step with its ip, nft or sysctl twin."),
        "graph": Entry("inspect", "Draw a topology: its namespaces, interfaces and links."),
        "rules": Entry("inspect", "Print the NAT rules that kube-proxy would install on a node."),
        "schema": Entry("inspect", "Print the JSON Schema of a topology or an experiment, for editors."),
    },
    "Kernels": {
        "kernel": Entry("kernel", "List and fetch other kernels, and run a command under one."),
    },
    "netlab itself": {
        "doctor": Entry("doctor", "Check what this kernel and this user can do."),
        "help": Entry("help", "Show the help of netlab or of a command."),
    },
}
"""Every command, as `netlab --help` shows them."""

COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class _Program(Group):
    sections: ClassVar = {heading: tuple(section) for heading, section in SECTIONS.items()}


def app(command: str | None = None) -> typer.Typer:
    """The program with all its commands, or, which is quicker, with those that are in one file with the command called.

    What is no command (an option, a misspelt word, None) gets all of them, and so does `help`.
    """
    program = _program()
    alone = command in COMMANDS and command != "help"
    files = [COMMANDS[command].file] if command is not None and alone else [each.file for each in COMMANDS.values()]
    for file in dict.fromkeys(files):
        program.add_typer(import_module(f"{__package__}.{file}").app)
    return program


def outline() -> typer.Typer:
    """The program with all its commands, of which each has its summary and does nothing."""
    program = _program()
    for name, entry in COMMANDS.items():
        program.command(name, help=entry.summary)(_nothing)
    return program


def _nothing() -> None:
    pass


def _program() -> typer.Typer:
    """The program without commands."""
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


_FOR_HELP: Final[Sequence[list[str]]] = (["-h"], ["--help"], ["-V"], ["--version"])


def run(words: Sequence[str]) -> NoReturn:
    """Run the command that the words call, and exit; SystemExit(2) with a message where they call none."""
    _end_word_at_colon(os.environ)
    try:
        program = outline() if list(words) in _FOR_HELP else app(next(iter(words), None))
        code = program(words, prog_name="netlab", standalone_mode=False)
    except _USAGE_ERROR as error:
        say(_complaint(error))
        code = 2
    sys.exit(code)


def _end_word_at_colon(environ: MutableMapping[str, str]) -> None:
    """Tell typer that a word begins after a colon that bash asks to complete: a word of its own to bash, of which it
    replaces nothing."""
    asked, at = environ.get("COMP_WORDS", ""), environ.get("COMP_CWORD", "")
    if "_NETLAB_COMPLETE" in environ and asked.endswith((" :", "\n:")) and at.isdigit():
        environ.update(COMP_WORDS=f"{asked} ''", COMP_CWORD=str(int(at) + 1))


def _complaint(error: typer.BadParameter) -> Lines:
    """What is wrong with the words, of which each may hold anything, in a line; above it how to call the command."""
    context, message = error.ctx, error.format_message()
    if context is None:
        return Lines(f"Error: {line(message)}")
    if message == context.get_help():  # a group without a command
        return Lines(message)
    hint = f"Try '{context.command_path} {context.help_option_names[0]}' for help."
    return Lines(f"{context.get_usage()}\n{hint}\n\nError: {line(message)}")
