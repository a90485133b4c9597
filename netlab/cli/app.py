"""The command line as typer has it: which file has which command, and the commands of those files together."""

from importlib import import_module

import typer

COMMANDS = {
    "up": "lifecycle",
    "down": "lifecycle",
    "status": "lifecycle",
    "exec": "exec",
    "shell": "exec",
    "plan": "inspect",
    "lint": "inspect",
    "schema": "inspect",
    "rules": "inspect",
    "run": "run",
    "matrix": "matrix",
    "report": "report",
    "capture": "observing",
    "watch": "observing",
    "explain": "observing",
    "doctor": "doctor",
    "fix": "fixing",
}
"""The file of each command, in the order of `netlab --help`."""


def app(command: str | None = None) -> typer.Typer:
    """The program with all its commands, or, which is quicker, with those that are in one file with the command called.

    What is no command (an option, a misspelt word, None) gets all of them.
    """
    program = typer.Typer(
        name="netlab",
        help="Build Linux network labs from YAML, make the kernel misbehave in them, and see why.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    files = [COMMANDS[command]] if command in COMMANDS else COMMANDS.values()
    for file in dict.fromkeys(files):
        program.add_typer(import_module(f"{__package__}.{file}").app)
    return program
