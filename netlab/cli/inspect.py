"""Looks at a topology, which need no lab and no privilege: `plan`, `lint`, `schema`, `rules`."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from netlab.cli.arguments import parse_settings, read_spec, topology_file
from netlab.cli.messages import counted, say
from netlab.cli.options import FixOption, NameOption, SetOption, TopologyArgument
from netlab.errors import UnsupportedError, UsageError

app = typer.Typer()


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
    """What `up` does, step by step, each with its `ip` / `nft` / `sysctl` twin."""
    from netlab.lab.plan import as_json, as_shell, as_text, up

    asked = read_spec(topology, parse_settings(settings), fix, name).topology
    steps = up(asked)
    texts = {
        PlanFormat.text: lambda: as_text(steps, f"{asked.name}-"),
        PlanFormat.json: lambda: as_json(steps, asked),
        PlanFormat.shell: lambda: as_shell(steps, asked),
    }
    sys.stdout.write(texts[output]())


@app.command()
def lint(topology: TopologyArgument = None, settings: SetOption = None, name: NameOption = None) -> None:
    """Check a topology with its experiments and fixes, or an experiment: each problem, with its place and a hint."""
    from netlab.experiments import catalogue
    from netlab.experiments.roles import assign
    from netlab.lab import tables
    from netlab.lab.spec import Spec
    from netlab.topology import read_text, with_each_fix

    file = topology_file(topology)
    text, pairs = read_text(file), parse_settings(settings)
    found = catalogue.runs(text, file, pairs, name)
    for each in found:
        try:
            assign(each.topology, each.experiment)
        except UsageError as error:
            raise UsageError(f"{file}: the experiment {each.experiment.name}: {error.message}", error.hint) from None
    if catalogue.is_document(text, file):
        say(f"{file}: the experiment {found[0].experiment.name} is sound")
        return
    rest, _ = catalogue.parted(pairs)
    sound = with_each_fix(text, file, rest, name, catalogue.load)
    unsaid = ""
    try:
        for fix, made in sound.items():
            tables.check(Spec(made, text, file, rest, (fix,)))
    except UnsupportedError as error:
        unsaid = f"; its tables were not checked: {error.message}"
    counts = [counted(len(found), "experiment")] if found else []
    counts += [f"{len(sound) - 1} fix{'es' if len(sound) > 2 else ''} of its own"] if len(sound) > 1 else []
    more = f", with {' and '.join(counts)}" if counts else ""
    say(f"{file}: lab {sound[''].name} is sound{more}{unsaid}")


class Document(StrEnum):
    topology = "topology"
    experiment = "experiment"


@app.command()
def schema(
    of: Annotated[Document, typer.Argument(metavar="[topology|experiment]", help="Of which file.")] = Document.topology,
) -> None:
    """The JSON Schema of a topology, or of an experiment's file, for editors."""
    from netlab.experiments.schema import text

    sys.stdout.write(text(of.value))


class RulesFormat(StrEnum):
    nft = "nft"
    iptables_save = "iptables-save"


@app.command()
def rules(
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node of the topology.")],
    topology: TopologyArgument = None,
    settings: SetOption = None,
    fix: FixOption = None,
    output: Annotated[RulesFormat, typer.Option("--format", help="nft or iptables-save text.")] = RulesFormat.nft,
) -> None:
    """The NAT rules that kube-proxy would install on a node."""
    from netlab.kubeproxy import ruleset

    asked = read_spec(topology, parse_settings(settings), fix, None).topology
    found = ruleset(asked, node)
    if found is None:
        nodes = ", ".join(asked.kube_proxy.nodes)
        raise UsageError(f"{node} gets no rules", f"these do: {nodes}" if nodes else "no node of this topology does")
    sys.stdout.write(found.nft() if output is RulesFormat.nft else found.iptables_save())
