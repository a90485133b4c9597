"""The arguments and options that several commands have, and what the shell completes them with."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netlab.cli.arguments import find_labs, topology_file
from netlab.errors import NetlabError
from netlab.escapes import line

if TYPE_CHECKING:
    from collections.abc import Iterable


class DataFormat(StrEnum):
    text = "text"
    json = "json"


def complete_lab(incomplete: str) -> list[str]:
    """The labs that are up."""
    from netlab.lab.rundir import labs, run_directory

    return _offered(labs(run_directory()), incomplete)


def complete_netns(incomplete: str) -> list[str]:
    """The namespaces of all labs that are up."""
    names = {name for _, state in find_labs() for name, _ in state.namespaces}
    return _offered(sorted(names), incomplete)


def complete_fix(context: typer.Context, incomplete: str) -> list[str]:
    """The built-in fixes, and those of the topology on the command line or, for `fix`, of the labs that are up."""
    from contextlib import suppress

    from netlab import topology
    from netlab.kubeproxy.fixes import FIXES
    from netlab.lab import lifecycle

    found = dict.fromkeys(FIXES)
    with suppress(NetlabError):
        if "topology" in context.params:
            # Where an option lacks its value, as here, click leaves the arguments unsorted.
            file = topology_file(context.params["topology"] or next(iter(context.args), None))
            found |= dict.fromkeys(fix.name for fix in topology.read(file)[1].fixes)
        else:
            for directory, state in find_labs():
                found |= dict.fromkeys(fix.name for fix in lifecycle.as_it_is(directory, state).topology.fixes)
    return _offered(found, incomplete)


def _offered(names: "Iterable[str]", incomplete: str) -> list[str]:
    """Those that begin so; none that a shell could not show, or would take for several."""
    return [name for name in names if name.startswith(incomplete) and line(name) == name]


TopologyArgument = Annotated[
    str | None,
    typer.Argument(metavar="[TOPOLOGY]", help="A YAML file, or - for stdin; left out: topology.yaml here."),
]
LabArgument = Annotated[
    str | None,
    typer.Argument(metavar="[LAB]", help="A lab's name; left out: the only one.", autocompletion=complete_lab),
]
LabOption = Annotated[
    str | None,
    typer.Option("--lab", "-l", help="A lab's name; left out: the only one.", autocompletion=complete_lab),
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
    typer.Option("--name", help="Another name for the lab."),
]
RootOption = Annotated[
    bool | None,
    typer.Option("--root/--rootless", help="Namespaces that `ip netns` sees, or in a user namespace of their own."),
]
LadderOption = Annotated[
    bool, typer.Option("--ladder", help="Print the drawn trial's packets across all namespaces, too.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the report with its pictures as one HTML file.")
]
