"""The mitigations, on a lab that is up: `fix list`, `fix apply`, `fix revert`."""

from typing import TYPE_CHECKING, Annotated

import typer

from netlab.cli.arguments import find_lab, find_labs, is_lab, lab_name, one_lab, read_spec
from netlab.cli.group import Group
from netlab.cli.options import LabOption, complete_fix, complete_lab, complete_topology
from netlab.cli.up import outcome_text
from netlab.linux import interrupts
from netlab.terminal import list_columns, say, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from netlab.lab.spec import Spec
    from netlab.style import Piece

app = typer.Typer(
    name="fix",
    cls=Group,
    help="List mitigations, or apply and revert them on a lab.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@app.command("list")
def fix_list(
    topology: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPOLOGY|LAB]",
            help="A YAML file, or a lab that is up; left out: all labs.",
            autocompletion=complete_topology,
        ),
    ] = None,
    lab: Annotated[
        str | None,
        typer.Option("--lab", "-l", metavar="LAB", help="A lab that is up.", autocompletion=complete_lab),
    ] = None,
) -> None:
    """List the mitigations by name, and say which labs have them.

    Those that come with netlab, and a topology's own.
    """
    from netlab.kubeproxy.fixes import FIXES
    from netlab.lab.lifecycle import as_it_is

    topology = one_lab(topology, lab if lab is None else lab_name(lab))
    if topology is None or is_lab(topology):
        found = find_labs() if topology is None else [find_lab(topology)]
        specs = [as_it_is(directory, state) for directory, state in found]
    else:
        specs = [read_spec(topology, (), None, None)]
    rows = [(fix.name, fix.summary, specs) for fix in FIXES.values()]
    rows += [(fix.name, fix.summary, [one]) for one in specs for fix in one.topology.fixes]
    width = max(len(name) for name, _, _ in rows)
    for name, summary, known in rows:
        notes = [] if name in FIXES or topology is not None else [f"of {known[0].topology.name}"]
        applied = [one.topology.name for one in known if name in one.fixes]
        notes += [f"applied: {','.join(applied)}"] if applied else []
        if topology is not None and name in FIXES and (why := FIXES[name].lacks(known[0].topology)) is not None:
            notes.append(f"not here: {why[0]}")
        noted = f"  [{'; '.join(notes)}]" if notes else ""
        show(_entry(name, f"{summary}{noted}", width))


def _entry(name: str, text: str, names: int) -> "Iterator[Piece]":
    """A line of the list; on a terminal as many as it needs."""
    import textwrap

    from netlab.style import Piece, Style

    columns = list_columns()
    lines = (
        [text]
        if columns is None
        else textwrap.wrap(text, max(columns - names - 1, 20), break_on_hyphens=False, break_long_words=False)
    )
    yield Piece(f"{name:{names}}", Style.STRONG)
    yield Piece(f" {lines[0]}\n")
    yield from (Piece(f"{'':{names}} {line}\n") for line in lines[1:])


@app.command("apply")
def fix_apply(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME…", help="Mitigations, as `netlab fix list` names them.", autocompletion=complete_fix
        ),
    ],
    lab: LabOption = None,
) -> None:
    """Apply mitigations to a lab that is up."""
    _change_fixes(lab, names, lambda fixes: (*fixes, *(name for name in names if name not in fixes)))


@app.command("revert")
def fix_revert(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME…]", help="Left out: all of them.", autocompletion=complete_fix),
    ] = None,
    lab: LabOption = None,
) -> None:
    """Revert mitigations of a lab that is up."""
    _change_fixes(lab, names or [], lambda fixes: tuple(name for name in fixes if names and name not in names))


def _change_fixes(
    lab_name: str | None, names: "Sequence[str]", change: "Callable[[tuple[str, ...]], tuple[str, ...]]"
) -> None:
    from netlab.kubeproxy.fixes import check_name
    from netlab.lab import lifecycle
    from netlab.lab.spec import with_only_fixes

    directory, _ = find_lab(lab_name)

    def with_the_fixes(was: "Spec") -> "Spec":
        for name in names:
            check_name(was.topology, name)
        return with_only_fixes(was, change(was.fixes))

    interrupts.stop_on_signals()
    outcome = lifecycle.change(directory, with_the_fixes)
    say(outcome_text(outcome, verbose=False))
