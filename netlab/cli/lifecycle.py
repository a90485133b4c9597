"""The life of a lab: `up`, `down`, `status`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from netlab.cli.arguments import find_lab, lab_directory, parse_settings, read_wanted
from netlab.cli.messages import Progress, counted, say
from netlab.cli.options import (
    DataFormat,
    FixOption,
    LabArgument,
    NameOption,
    RootOption,
    SetOption,
    TopologyArgument,
    complete_lab,
)
from netlab.errors import UsageError
from netlab.linux import interrupts

if TYPE_CHECKING:
    from netlab.lab.lifecycle import Done, Outcome
    from netlab.lab.spec import Wanted
    from netlab.lab.state import LabDirectory
    from netlab.lab.steps import Step


def up(
    topology: TopologyArgument = None,
    settings: SetOption = None,
    fix: FixOption = None,
    name: NameOption = None,
    root: RootOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the steps, and do nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print each step.")] = False,
) -> None:
    """Build a lab; a lab that is up is made to follow its topology."""
    from netlab.lab import lifecycle as lab
    from netlab.lab import plan

    wanted = read_wanted(topology, parse_settings(settings), fix, name)
    directory = lab_directory(wanted.topology.name)
    if dry_run:
        steps = lab.pending(directory, wanted)
        sys.stdout.write(plan.as_text(steps, f"{wanted.topology.name}-") if steps else "")
        return
    outcome = _up(directory, wanted, root, quiet=quiet, verbose=verbose)
    if not quiet:
        say(outcome_text(wanted, outcome, verbose=verbose))


def _up(
    directory: "LabDirectory", wanted: "Wanted", root: bool | None, *, quiet: bool = False, verbose: bool = False
) -> "Outcome":
    from netlab.lab import lifecycle as lab

    interrupts.stop_on_signals()
    topology = wanted.topology
    total = sum(1 + len(n.routes) + len(n.sysctls) for n in topology.namespaces) + 6 * len(topology.veths)
    progress = Progress(f"building {topology.name}, steps", total, quiet=quiet or verbose)

    def show(step: "Step") -> None:
        say(step.describe())

    done: Done = show if verbose else progress.step
    try:
        rootless = None if root is None else not root
        return lab.up(directory, wanted, rootless=rootless, done=done, waiting=progress.waiting)
    finally:
        progress.end()


def outcome_text(wanted: "Wanted", outcome: "Outcome", *, verbose: bool) -> str:
    """What `up` did, in a line, and a line for each change to a lab that was up."""
    topology = wanted.topology
    before = "removed what an interrupted command had left; " if outcome.leftovers else ""
    if outcome.built:
        counts = [
            counted(len(topology.namespaces), "namespace"),
            counted(len(topology.veths), "link"),
            counted(len(topology.services), "service"),
        ]
        fixes = f", with {' and '.join(wanted.fixes)}" if wanted.fixes else ""
        return f"{before}lab {topology.name} is up: {', '.join(counts)}{fixes}"
    if not outcome.steps:
        return f"lab {topology.name} is up: nothing to do"
    lines = [f"lab {topology.name} is up: {counted(len(outcome.steps), 'change')}"]
    if not verbose:
        lines += [f"  {step.describe()}" for step in outcome.steps]
    return "\n".join(lines)


def down(
    lab: LabArgument = None,
    all_labs: Annotated[bool, typer.Option("--all", help="Take every lab of this user down.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Take a lab down, from its state alone; a lab that isn't there is success."""
    from netlab.lab.lifecycle import down as take_down
    from netlab.lab.state import choose, labs, remove_if_empty, run_directory

    root = run_directory()
    if all_labs and lab is not None:
        raise UsageError("--all and a lab's name don't go together")
    there = labs(root)
    if lab is None and there and not all_labs:
        doomed = [choose(root, None)]
    else:  # an empty name is a lab's that isn't there, not one left out
        doomed = [name for name in there if all_labs or name == lab]
    for name in doomed:
        for left in take_down(lab_directory(name)):
            say(f"netlab: {left}")
        if not quiet:
            say(f"lab {name} is down")
    remove_if_empty(root)
    if not doomed and not quiet:
        is_file = lab is not None and lab.endswith((".yaml", ".yml"))
        hint = "; that is a file: `netlab down` takes a lab's name" if is_file else ""
        what = "no lab is up" if lab is None else f"no lab is called {lab or repr(lab)}"
        say(f"{what}: nothing to do{hint}")


def status(
    lab: Annotated[
        str | None,
        typer.Argument(
            metavar="[LAB]", help="A lab's name; left out: all labs, each in a line.", autocompletion=complete_lab
        ),
    ] = None,
    output: Annotated[DataFormat, typer.Option("--format", help="text or json.")] = DataFormat.text,
) -> None:
    """The labs that are up; or one lab's namespaces, addresses, services, programs and drift."""
    from netlab.lab import status as looks

    text = looks.overview(output.value) if lab is None else looks.detail(*find_lab(lab), output.value)
    sys.stdout.write(text)
