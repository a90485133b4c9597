"""Looks at a topology, which need no lab and no privilege: `plan`, `lint`, `graph`, `schema`,
`rules`."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from netlab import escapes, shipped
from netlab.cli.arguments import (
    find_lab,
    find_labs,
    parse_settings,
    problems_json,
    read_spec,
    tell_warnings,
    topology_file,
    topology_here,
)
from netlab.cli.messages import counted
from netlab.cli.options import (
    DataFormat,
    FixOption,
    FormatOption,
    NameOption,
    SetOption,
    TopologyArgument,
    complete_lab,
    offered,
)
from netlab.errors import NetlabError, TopologyError, UsageError
from netlab.terminal import columns, say, write

if TYPE_CHECKING:
    from netlab.errors import Problem
    from netlab.experiments.lint import Sound
    from netlab.model import Topology

app = typer.Typer()


_LabOption = Annotated[
    str | None,
    typer.Option(
        "--lab", "-l", metavar="LAB", help="Of a lab that is up, instead of a file.", autocompletion=complete_lab
    ),
]


def _topology(
    topology: str | None, settings: Sequence[str] | None, fixes: Sequence[str] | None, lab: str | None
) -> "Topology":
    """What a file describes, or what a lab is: the one named, or the one that is meant where no topology is here."""
    if lab is None and (topology is not None or topology_here() is not None or not find_labs()):
        return read_spec(topology, parse_settings(settings), fixes, None).topology
    if topology is not None or settings or fixes:
        raise UsageError("a lab is shown as it is", "leave out the topology, --set and --fix, or -l")
    from netlab.lab.lifecycle import as_it_is

    return as_it_is(*find_lab(lab)).topology


def _complete_node(context: typer.Context, incomplete: str) -> list[str]:
    """The nodes that get rules, in the lab named or the topology that is meant."""
    try:
        return offered(_topology(None, (), (), context.params.get("lab")).kube_proxy.nodes, incomplete)
    except NetlabError:
        return []


class PlanFormat(StrEnum):
    text = "text"
    json = "json"
    shell = "shell"


@app.command()
def plan(
    topology: TopologyArgument = None,
    settings: SetOption = None,
    fix: FixOption = None,
    name: NameOption = None,
    output: Annotated[PlanFormat, typer.Option("--format", help="text, json, or a shell script.")] = PlanFormat.text,
) -> None:
    """Print what `up` does, each step with its ip, nft or sysctl twin."""
    from netlab.lab.plan import as_json, as_shell, as_text, up

    asked = read_spec(topology, parse_settings(settings), fix, name).topology
    steps = up(asked)
    texts = {
        PlanFormat.text: lambda: as_text(steps, f"{asked.name}-"),
        PlanFormat.json: lambda: as_json(steps, asked),
        PlanFormat.shell: lambda: as_shell(steps, asked),
    }
    write(texts[output]())


@app.command()
def lint(
    topology: TopologyArgument = None,
    settings: SetOption = None,
    name: NameOption = None,
    output: FormatOption = DataFormat.text,
) -> None:
    """Check a topology or an experiment.

    A topology is checked with its experiments and fixes. Each problem is told with its place and a hint.
    """
    from netlab.experiments.lint import Sound
    from netlab.experiments.lint import lint as check
    from netlab.topology import read_text

    file = topology_file(topology)

    def reads(path: str) -> None:
        if not shipped.has(file):
            say(f"note: this reads {path}, which is outside the directory of the file that names it")

    try:
        sound = check(read_text(file), file, parse_settings(settings), name, reads)
    except TopologyError as error:
        if output is not DataFormat.json:
            raise
        write(_lint_json(file, Sound(None, ()), error.file, error.problems))
        sys.exit(error.exit_code)
    if output is DataFormat.json:
        write(_lint_json(file, sound))
        return
    tell_warnings(file, sound.warnings)
    if sound.lab is None:
        say(f"{file}: the experiment {sound.experiments[0]} is sound")
        return
    counts = [counted(len(sound.experiments), "experiment")] if sound.experiments else []
    counts += [f"{sound.fixes} fix{'es' if sound.fixes > 1 else ''} of its own"] if sound.fixes else []
    more = f", with {' and '.join(counts)}" if counts else ""
    unsaid = f"; its tables were not checked: {sound.unchecked}" if sound.unchecked else ""
    say(f"{file}: lab {sound.lab} is sound{more}{unsaid}")


def _lint_json(file: str, found: "Sound", wrong: str = "", problems: "Sequence[Problem]" = ()) -> str:
    """What `lint` found; wrong is the file that the problems are in, which may be one that file names."""
    told = {
        "file": file,
        "sound": not problems,
        "lab": found.lab,
        "experiments": [*found.experiments],
        "unchecked": found.unchecked or None,
        "problems": problems_json(wrong, problems),
        "warnings": problems_json(file, found.warnings),
    }
    return escapes.as_json(told)


class GraphFormat(StrEnum):
    text = "text"
    mermaid = "mermaid"
    dot = "dot"
    svg = "svg"


@app.command()
def graph(
    topology: TopologyArgument = None,
    settings: SetOption = None,
    fix: FixOption = None,
    lab: _LabOption = None,
    output: Annotated[
        GraphFormat, typer.Option("--format", help="text, mermaid, dot (Graphviz), or svg.")
    ] = GraphFormat.text,
) -> None:
    """Draw a topology: its namespaces, interfaces and links."""
    from netlab.report import graph as drawn
    from netlab.report import graph_text

    asked = _topology(topology, settings, fix, lab)
    texts = {
        GraphFormat.text: lambda: graph_text.text(asked, columns()),
        GraphFormat.mermaid: lambda: graph_text.mermaid(asked),
        GraphFormat.dot: lambda: graph_text.dot(asked),
        GraphFormat.svg: lambda: drawn.svg_file(asked),
    }
    write(texts[output]())


class Document(StrEnum):
    topology = "topology"
    experiment = "experiment"


@app.command()
def schema(
    of: Annotated[Document, typer.Argument(metavar="[topology|experiment]", help="Of which file.")] = Document.topology,
) -> None:
    """Print the JSON Schema of a topology or an experiment, for editors."""
    from netlab.experiments.schema import text

    write(text(of.value))


class RulesFormat(StrEnum):
    nft = "nft"
    iptables_save = "iptables-save"


@app.command()
def rules(
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node of the topology.", autocompletion=_complete_node)],
    topology: TopologyArgument = None,
    settings: SetOption = None,
    fix: FixOption = None,
    lab: _LabOption = None,
    output: Annotated[RulesFormat, typer.Option("--format", help="nft or iptables-save text.")] = RulesFormat.nft,
) -> None:
    """Print the NAT rules that kube-proxy would install on a node."""
    from netlab.kubeproxy import ruleset

    asked = _topology(topology, settings, fix, lab)
    found = ruleset(asked, node)
    if found is None:
        nodes = ", ".join(asked.kube_proxy.nodes)
        raise UsageError(f"{node} gets no rules", f"these do: {nodes}" if nodes else "no node of this topology does")
    write(found.nft() if output is RulesFormat.nft else found.iptables_save())
