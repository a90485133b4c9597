"""`matrix`: every experiment of a topology with every fix."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from netlab.cli.arguments import find_lab, is_lab, parse_settings, topology_file
from netlab.cli.messages import Progress, bar, counted
from netlab.cli.options import (
    DataFormat,
    FormatOption,
    HtmlOption,
    NameOption,
    RootOption,
    SetOption,
    complete_experiment,
    complete_fix,
    complete_topology,
    whole,
)
from netlab.cli.output import check_places, write_file
from netlab.errors import UsageError
from netlab.linux import interrupts
from netlab.terminal import columns, say, show, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netlab.matrix.grid import Task

app = typer.Typer()


@app.command()
def matrix(
    topology: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPOLOGY|EXPERIMENT]",
            help="A topology's file, or an experiment's; else as for `up`.",
            autocompletion=complete_topology,
        ),
    ] = None,
    experiment: Annotated[
        list[str] | None,
        typer.Option(
            "--experiment",
            "-e",
            metavar="NAME",
            help="Only this experiment; may be repeated.",
            autocompletion=complete_experiment,
        ),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            "--fix", metavar="NAME", help="Only this fix (a+b: both), beside no fix.", autocompletion=complete_fix
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", metavar="N", parser=whole(1), help="How many trials in each cell.")
    ] = 1,
    settings: SetOption = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            parser=whole(1),
            help="How many cells at a time; left out: as many as memory allows.",
        ),
    ] = None,
    name: NameOption = None,
    root: RootOption = None,
    output: FormatOption = DataFormat.text,
    html: HtmlOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a matrix was interrupted.")] = False,
) -> None:
    """Run every experiment with every fix, and print one table.

    Each cell is run in a lab of its own.
    """
    from netlab.experiments import catalogue
    from netlab.lab import lifecycle
    from netlab.matrix import grid
    from netlab.matrix import run as runner
    from netlab.report import matrix as as_text
    from netlab.report import matrix_json as as_json
    from netlab.topology import read_text

    check_places(html)
    if is_lab(topology):
        own = find_lab(topology)[1].file or "FILE"
        raise UsageError(f"{topology} is a lab, and a matrix is run in labs of its own", f"`netlab matrix {own}`")
    file, pairs = topology_file(topology), parse_settings(settings)
    runs = catalogue.runs(read_text(file), file, pairs, name, lambda found: grid.chosen(found, experiment or (), file))
    across = grid.columns(runs, fix or ())
    manner = runner.Manner(trials, jobs or runner.default_jobs(), root is False or (root is None and os.geteuid() != 0))
    lifecycle.check_privilege(rootless=manner.rootless)
    lab_name = runs[0].topology.name
    progress = Progress(lab_name, 0)

    def look(done: int, total: int, at_work: "Sequence[Task]") -> None:
        cells = ", ".join(f"{task.cell.experiment} with {task.cell.fix}" for task in at_work)
        progress.show(f"{bar(done, total)} {lab_name}: {done}/{total} cells; running {cells}")

    try:
        with interrupts.as_news() as stop:
            made = runner.run(runs, across, lab_name, pairs, manner, stop, look, resume=resume)
    finally:
        progress.end()
    if isinstance(made, runner.Stopped):
        kept = f"{counted(made.kept, 'cell')} of {made.to_run} {'is' if made.kept == 1 else 'are'} kept"
        kept += ": --resume runs the others"
        say(f"netlab: interrupted; {kept if made.kept else 'no cell was finished'}")
        sys.exit(130)
    if output is DataFormat.json:
        write(as_json.render(made))
    else:
        show(as_text.pieces(made, columns()))
    if html is not None:
        from netlab.report import matrix_html as as_html

        write_file(html, as_html.render(made).encode())
    sys.exit(made.exit_code())
