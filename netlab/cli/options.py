"""The arguments and options that several commands have, and what the shell completes them with."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netlab.cli.arguments import find_lab, find_labs, is_lab, topology_file
from netlab.errors import NetlabError, UsageError
from netlab.escapes import line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class DataFormat(StrEnum):
    text = "text"
    json = "json"


def whole(least: int, most: int | None = None) -> "Callable[[str], int]":
    """What reads a whole number in this range; it raises BadParameter."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < least or (most is not None and number > most):
            limits = f"of at least {least}" if most is None else f"from {least} to {most:,}"
            raise typer.BadParameter(f"{text!r} is not a whole number {limits}.")
        return number

    return read


def seconds(text: str) -> float:
    """What reads a time in seconds; it raises BadParameter."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise typer.BadParameter(f"{text!r} is not a number of seconds.")
    return number


PROGRAM_FOLLOWS = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""The context of a command that ends in a program's words: what follows its own argument is the program's."""

ProgramArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[--] COMMAND…", help="The program and its arguments.")
]


def program_words(command: list[str] | None, hint: str) -> list[str]:
    """The program's own words; UsageError with the hint where there are none."""
    words = command or []
    argv = words[1:] if words[:1] == ["--"] else words
    if not argv:
        raise UsageError("there is no command to run", hint)
    return argv


def complete_lab(incomplete: str) -> list[str]:
    """The labs that are up."""
    from netlab.lab.rundir import labs, run_directory

    return offered(labs(run_directory()), incomplete)


def complete_netns(context: typer.Context, incomplete: str) -> list[str]:
    """The namespaces of the lab that is meant; none where that isn't clear."""
    try:
        _, state = find_lab(_lab_of(context))
    except NetlabError:
        return []
    return offered((name for name, _ in state.namespaces), incomplete)


def complete_program(context: typer.Context, incomplete: str) -> list[str]:
    """The namespaces that have programs, and the programs: after a namespace its own."""
    try:
        _, state = find_lab(_lab_of(context))
    except NetlabError:
        return []
    words = [*(context.params.get("words") or []), *context.args]
    if words:
        return offered((one.name for one in state.programs if one.netns == words[0]), incomplete)
    names = dict.fromkeys(name for one in state.programs for name in (one.netns, one.name))
    return offered(names, incomplete)


def complete_interface(context: typer.Context, incomplete: str) -> list[str]:
    """The namespaces of the lab that is meant, and after a colon the interfaces of one.

    bash breaks words at a colon, and has only what follows replaced.
    """
    from netlab.lab import lifecycle

    before = [*(context.params.get("names") or []), *context.args]
    netns, colon, _ = incomplete.partition(":")
    start = f"{netns}:"
    if not colon and before[-1:] == [":"] and len(before) > 1:
        netns, colon, start = before[-2], ":", ""
    if not colon:
        return complete_netns(context, incomplete)
    try:
        topology = lifecycle.as_it_is(*find_lab(_lab_of(context))).topology
    except NetlabError:
        return []
    names = [each.ifname for each in topology.interfaces() if each.netns == netns]
    return offered((f"{start}{name}" for name in names), incomplete)


def complete_topology(context: typer.Context, incomplete: str) -> list[str]:
    """The topologies that come with netlab, and the files here; of a path the shell knows more.

    Of `run` and `matrix` the experiments too, and of what takes a lab as well those that are up.
    """
    from netlab import shipped

    if "/" in incomplete:
        return []
    names = [*shipped.topologies()]
    if context.info_name in ("run", "matrix"):
        names += shipped.experiments()
    if context.info_name in ("run", "list"):
        names += complete_lab("")
    names += sorted(path.name for kind in ("*.yaml", "*.yml") for path in Path().glob(kind))
    return offered(dict.fromkeys(names), incomplete)


def complete_experiment(context: typer.Context, incomplete: str) -> list[str]:
    """The experiments of the topology on the command line, or of the lab that is meant."""
    from netlab.experiments import catalogue
    from netlab.topology import read_text

    try:
        if (lab := context.params.get("lab")) is not None or is_lab(_topology_of(context)):
            directory, state = find_lab(lab or _topology_of(context))
            text, file, settings = directory.topology_text(), state.file or "-", state.settings
        else:
            file, settings = topology_file(_topology_of(context)), ()
            text = read_text(file)
        found = catalogue.runs(text, file, settings)
    except NetlabError:
        return []
    return offered((run.experiment.name for run in found), incomplete)


def _lab_of(context: typer.Context) -> str | None:
    named = _argument(context, "argument") if "argument" in context.params else None
    return context.params.get("lab") or named


def _topology_of(context: typer.Context) -> str | None:
    return _argument(context, "topology")


def _argument(context: typer.Context, name: str) -> str | None:
    """The first argument. Where an option lacks its value, click leaves the arguments unsorted."""
    return context.params.get(name) or next(iter(context.args), None)


def complete_fix(context: typer.Context, incomplete: str) -> list[str]:
    """The built-in fixes, and those of the topology on the command line or, for `fix`, of the labs that are up."""
    from contextlib import suppress

    from netlab import topology
    from netlab.kubeproxy.fixes import FIXES
    from netlab.lab import lifecycle

    found = dict.fromkeys(FIXES)
    with suppress(NetlabError):
        if "topology" in context.params:
            file = topology_file(_topology_of(context))
            found |= dict.fromkeys(fix.name for fix in topology.read(file)[1].fixes)
        else:
            for directory, state in find_labs():
                found |= dict.fromkeys(fix.name for fix in lifecycle.as_it_is(directory, state).topology.fixes)
    return offered(found, incomplete)


def complete_fixes(context: typer.Context, incomplete: str) -> list[str]:
    """The same after each comma, but those that are named before it."""
    named, comma, _ = incomplete.rpartition(",")
    begun = f"{named}{comma}"
    left = (name for name in complete_fix(context, "") if name not in named.split(","))
    return offered((f"{begun}{name}" for name in left), incomplete)


def offered(names: "Iterable[str]", incomplete: str) -> list[str]:
    """Those that begin so; none that a shell could not show, or would take for several."""
    return [name for name in names if name.startswith(incomplete) and line(name) == name]


TopologyArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[TOPOLOGY]",
        help="A YAML file, or - for stdin; left out: topology.yaml here.",
        autocompletion=complete_topology,
    ),
]
_WHICH_LAB = "A lab that is up; left out: that of topology.yaml here, else the only one."
LabArgument = Annotated[
    str | None,
    typer.Argument(metavar="[LAB]", help=_WHICH_LAB, autocompletion=complete_lab),
]
LabOption = Annotated[
    str | None,
    typer.Option("--lab", "-l", metavar="LAB", help=_WHICH_LAB, autocompletion=complete_lab),
]
OtherLabOption = Annotated[
    str | None,
    typer.Option("--lab", "-l", metavar="LAB", help="The same as the argument.", autocompletion=complete_lab),
]
NetnsArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A namespace of the lab.", autocompletion=complete_netns)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the topology: vars.window=1048576."),
]
FixOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fix",
        metavar="NAME",
        help="With a mitigation: be-liberal; `fix list` has them all.",
        autocompletion=complete_fix,
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Another name for the lab."),
]
RootOption = Annotated[
    bool | None,
    typer.Option("--root/--rootless", help="Namespaces that `ip netns` sees, or in a user namespace of their own."),
]
FormatOption = Annotated[DataFormat, typer.Option("--format", help="text or json.")]
LadderOption = Annotated[bool, typer.Option("--ladder", help="Print one trial's packets across all namespaces, too.")]
EveryInterfaceOption = Annotated[
    bool, typer.Option("--every-interface", help="Write a packet at every interface, not only where it is first seen.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the report with its pictures as one HTML file.")
]
