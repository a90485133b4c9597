"""A lab's own programs: `logs`, `restart`."""

import codecs
import select
from typing import TYPE_CHECKING, Annotated

import typer

from netlab import terminal
from netlab.cli.arguments import find_lab
from netlab.cli.messages import Progress
from netlab.cli.options import LabOption, complete_program
from netlab.errors import UsageError
from netlab.layout import aligned
from netlab.linux import interrupts
from netlab.terminal import say

if TYPE_CHECKING:
    from pathlib import Path

    from netlab.lab.state import LabState, StartedProgram

app = typer.Typer()


@app.command()
def logs(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NETNS] [PROGRAM]", help="A program; left out: which there are.", autocompletion=complete_program
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as it prints more, until it ends or Ctrl-C.")
    ] = False,
    lab: LabOption = None,
) -> None:
    """Show what a program of a lab has printed.

    Without a program: which there are, and in which file each one's output is.
    """
    directory, state = find_lab(lab)
    if not words:
        rows = [(one.netns, one.name, str(directory.log(one.netns, one.name))) for one in state.programs]
        if rows:
            terminal.write(aligned(rows))
        else:
            say(f"the lab {state.lab} has no programs")
        return
    program = _program(state, words)
    file = directory.log(program.netns, program.name)
    if follow:
        _follow(state, program, file)
        return
    with file.open("rb") as log:
        while data := log.read(_CHUNK):
            terminal.write(data.decode(errors="surrogateescape"))


_CHUNK = 1 << 20
_POLL_MS = 200


def _follow(state: "LabState", program: "StartedProgram", file: "Path") -> None:
    """Show the output as it comes, until the program has ended and all is shown, or a signal."""
    from netlab.lab import programs
    from netlab.lab.standing import open_lab

    namespaces = open_lab(state)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    with interrupts.as_news() as news, file.open("rb") as log:
        poll = select.poll()
        poll.register(news, select.POLLIN)
        poll.register(namespaces.lifeline, select.POLLIN)
        while True:
            alive = programs.running(namespaces, program)
            while data := log.read(_CHUNK):
                terminal.write(decoder.decode(data))
            terminal.flush()
            if not alive:
                how = programs.how_ended(namespaces, program)
                say(f"{program.name} in {program.netns} has ended{f': {how}' if how else ''}")
                return
            if poll.poll(_POLL_MS):
                return


@app.command()
def restart(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[NETNS] PROGRAM", help="A program; NETNS where several have it.", autocompletion=complete_program
        ),
    ],
    lab: LabOption = None,
) -> None:
    """End a program of a lab, and start it again.

    It waits until the program is ready, as `up` does.
    """
    from netlab.lab import lifecycle

    directory, state = find_lab(lab)
    program = _program(state, words)
    interrupts.stop_on_signals()
    progress = Progress(state.lab, 1)
    try:
        lifecycle.restart(directory, program.netns, program.name, waiting=progress.waiting)
    finally:
        progress.end()
    say(f"{program.name} in {program.netns} is running again")


def _program(state: "LabState", words: list[str]) -> "StartedProgram":
    """The program that the words name: NETNS PROGRAM, or either where that is clear. UsageError."""
    there = ", ".join(f"{one.netns} {one.name}" for one in state.programs) or "none"
    match words:
        case [netns, name]:
            found = [one for one in state.programs if (one.netns, one.name) == (netns, name)]
        case [word]:
            found = [one for one in state.programs if one.name == word]
            found = found or [one for one in state.programs if one.netns == word]
        case _:
            raise UsageError("more than NETNS PROGRAM", f"the programs of {state.lab} are: {there}")
    if not found:
        raise UsageError(f"the lab {state.lab} has no program {' '.join(words)}", f"its programs are: {there}")
    if len(found) > 1:
        raise UsageError(
            f"several programs are meant by {words[0]}",
            f"name one of them: {', '.join(f'{one.netns} {one.name}' for one in found)}",
        )
    return found[0]
