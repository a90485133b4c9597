"""Experiments: `run` and `matrix` run them, `report` says again what a run showed."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netlab.cli.arguments import (
    absolute,
    check_place,
    find_lab,
    is_lab,
    lab_directory,
    parse_settings,
    topology_file,
    topology_here,
)
from netlab.cli.messages import Progress, bar, counted, say
from netlab.cli.options import DataFormat, FixOption, NameOption, RootOption, SetOption, complete_fix
from netlab.errors import UsageError
from netlab.linux import interrupts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netlab.analysis.findings import Findings
    from netlab.analysis.result import Result
    from netlab.experiments.catalogue import Run
    from netlab.lab.netns import Namespaces
    from netlab.lab.spec import Spec
    from netlab.matrix.grid import Task
    from netlab.record.environment import Environment

app = typer.Typer()

LadderOption = Annotated[
    bool, typer.Option("--ladder", help="Print the drawn trial's packets across all namespaces, too.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the report with its pictures as one HTML file.")
]


class Expectation(StrEnum):
    reproduced = "reproduced"
    not_reproduced = "not-reproduced"


@app.command()
def run(
    topology: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPOLOGY|EXPERIMENT|LAB]",
            help="A topology's file, an experiment's, or a lab that is up; left out: as for `up`.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="How often to try; left out: as the document says, else 20.")
    ] = None,
    settings: SetOption = None,
    fix: FixOption = None,
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", "--trigger", "-e", metavar="NAME", help="Which experiment; left out: the first."),
    ] = None,
    expect: Annotated[
        Expectation | None,
        typer.Option("--expect", help="What exit code 0 stands for; left out: what the experiment's document expects."),
    ] = None,
    name: NameOption = None,
    root: RootOption = None,
    output: Annotated[DataFormat, typer.Option("--format", help="text or json.")] = DataFormat.text,
    ladder: LadderOption = False,
    html: HtmlOption = None,
    pcapng: Annotated[
        Path | None, typer.Option("--pcapng", metavar="FILE", help="Write the drawn trial's packets, with comments.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="FILE", help="Write all of the run into one file, for `netlab report`."),
    ] = None,
) -> None:
    """Run an experiment and say what the kernel did: builds the lab if it isn't up, and leaves it as it was."""
    from netlab.capabilities.probes import probe
    from netlab.experiments import run as runner
    from netlab.lab.spec import Spec
    from netlab.topology import load_with_fixes

    _check_report_options(output, ladder=ladder)
    _check_places(html, pcapng, bundle)
    chosen = _chosen(topology, experiment, parse_settings(settings), name)
    fixes = tuple(dict.fromkeys(fix or ()))
    fixed = load_with_fixes(chosen.text, chosen.file, chosen.settings, chosen.topology.name, fixes)
    spec = Spec(fixed, chosen.text, absolute(chosen.file), chosen.settings, fixes)
    capabilities = runner.there(chosen, probe(chosen.experiment.capabilities()))
    directory = lab_directory(spec.topology.name)
    with runner.standing(directory, spec, None if root is None else not root) as spec:
        keep_frames = pcapng is not None or bundle is not None
        namespaces = runner.namespaces(directory)
        count = trials or chosen.experiment.trials
        result, findings = _run(namespaces, spec, chosen, capabilities, count, keep_frames=keep_frames)
        environment = _environment(namespaces, spec) if bundle is not None else None
    page = _page(result, findings) if html is not None or bundle is not None else ""
    _report(result, findings, output, ladder=ladder)
    if html is not None:
        _write(html, page.encode())
    if pcapng is not None:
        from netlab.report.packets import render

        _write(pcapng, render(result, findings.timeline.recording, drawn_only=True))
    if bundle is not None and environment is not None:
        from netlab.report import bundle as bundles

        _write(bundle, bundles.render(spec.topology, result, findings.timeline.recording, environment, page))
    sys.exit(result.exit_code(expect))


@app.command()
def matrix(
    topology: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPOLOGY|EXPERIMENT]", help="A topology's file, or an experiment's; else as for `up`."
        ),
    ] = None,
    experiment: Annotated[
        list[str] | None,
        typer.Option("--experiment", "-e", metavar="NAME", help="Only this experiment, and others named so."),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            "--fix", metavar="NAME", help="Only plain and this fix, or several: a+b.", autocompletion=complete_fix
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="How often to run each cell.")] = 1,
    settings: SetOption = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="So many cells at a time; left out: what the machine bears."),
    ] = None,
    name: NameOption = None,
    root: RootOption = None,
    output: Annotated[DataFormat, typer.Option("--format", help="text or json.")] = DataFormat.text,
    html: HtmlOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a matrix was interrupted.")] = False,
) -> None:
    """Run every experiment of a topology with every fix, in labs of their own: one table."""
    from netlab.experiments import catalogue
    from netlab.lab import lifecycle
    from netlab.matrix import grid
    from netlab.matrix import run as runner
    from netlab.report import matrix as as_text
    from netlab.report import matrix_json as as_json
    from netlab.topology import read_text

    _check_places(html)
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
        kept += ": with --resume the others are run"
        say(f"netlab: interrupted; {kept if made.kept else 'no cell was done'}")
        sys.exit(130)
    sys.stdout.write(as_json.render(made) if output is DataFormat.json else as_text.render(made))
    if html is not None:
        from netlab.report import matrix_html as as_html

        _write(html, as_html.render(made).encode())
    sys.exit(made.exit_code())


def _check_report_options(output: DataFormat, *, ladder: bool) -> None:
    if ladder and output is DataFormat.json:
        raise UsageError("--ladder is text, and --format json is not")


def _check_places(*files: Path | None) -> None:
    for file in files:
        if file is not None:
            check_place(file)


def _write(file: Path, data: bytes) -> None:
    from netlab.linux.files import write_whole

    write_whole(file, data)
    say(f"wrote {file}")


def _chosen(
    topology: str | None, experiment: str | None, settings: tuple[tuple[str, str], ...], name: str | None
) -> "Run":
    """The experiment to run: of a file, or of a lab that is up."""
    from netlab.experiments import catalogue
    from netlab.lab.state import choose, labs, run_directory
    from netlab.topology import read_text

    nothing_here = topology is None and topology_here() is None
    if is_lab(topology) or (nothing_here and labs(run_directory())):
        directory, state = find_lab(choose(run_directory(), topology))
        text, file = directory.topology_text(), state.file or "-"
        (chosen,) = catalogue.runs(
            text,
            file,
            (*state.settings, *settings),
            state.lab,
            lambda found: [catalogue.choose(found, experiment, state.lab)],
        )
        if chosen.file != file:
            raise UsageError(
                f"{chosen.experiment.name} is run in another lab than {state.lab}: in that of {chosen.file}",
                "`netlab run` with the experiment's own file runs it there",
            )
        return chosen
    file = topology_file(topology)
    (chosen,) = catalogue.runs(
        read_text(file), file, settings, name, lambda found: [catalogue.choose(found, experiment, file)]
    )
    return chosen


_TOLD = 5
"""How many disagreements are told in full."""


def _run(
    namespaces: "Namespaces",
    spec: "Spec",
    chosen: "Run",
    capabilities: tuple[str, ...],
    trials: int,
    *,
    keep_frames: bool,
) -> tuple["Result", "Findings"]:
    """Run the experiment in the lab, which is up; say where the window model and the kernel disagree."""
    from netlab.analysis.crosscheck import crosscheck
    from netlab.experiments import run as runner

    progress = Progress(f"{spec.topology.name}, trials", trials)
    try:
        result, findings = runner.run(
            namespaces,
            spec,
            chosen,
            capabilities,
            trials,
            lambda count, _total: progress.at(count),
            keep_frames=keep_frames,
        )
    finally:
        progress.end()
    result, disagreements = crosscheck(result, findings.timeline)
    for sentence in disagreements[:_TOLD]:
        say(f"netlab: model and kernel disagree: {sentence}")
    if len(disagreements) > _TOLD:
        say(f"netlab: model and kernel disagree about {len(disagreements) - _TOLD:,} more packets")
    return result, findings


def _environment(namespaces: "Namespaces", spec: "Spec") -> "Environment":
    """What the kernel tells of the lab beside what was observed, for a bundle."""
    from netlab.lab.environment import collect

    return collect(namespaces, [netns.name for netns in spec.topology.namespaces])


def _report(result: "Result", findings: "Findings", output: DataFormat, *, ladder: bool) -> None:
    """What a run showed, on stdout, with the ladder of its packets where it is wanted."""
    from netlab.report import json as as_json
    from netlab.report import text as as_text

    sys.stdout.write(as_json.render(result) if output is DataFormat.json else as_text.render(result))
    if ladder and result.trials:
        from netlab.report import ladder as as_ladder
        from netlab.report.sequence import build as build_ladder

        _, trial = as_text.shown(result)
        sys.stdout.write("\n" + as_ladder.render(build_ladder(findings, trial.flow, trial)))


def _page(result: "Result", findings: "Findings") -> str:
    """What a run showed, as one HTML file."""
    from netlab.report import html as as_html

    return as_html.render(result, findings)


@app.command()
def report(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `netlab run --bundle FILE` wrote.")],
    output: Annotated[DataFormat, typer.Option("--format", help="text or json.")] = DataFormat.text,
    ladder: LadderOption = False,
    html: HtmlOption = None,
) -> None:
    """Say again what a run showed, from its bundle: on any machine, without privilege, without its lab."""
    from netlab.analysis.findings import analyse
    from netlab.report.bundle import read

    _check_report_options(output, ladder=ladder)
    _check_places(html)
    bundle = read(file)
    findings = analyse(bundle.recording)
    _report(bundle.result, findings, output, ladder=ladder)
    if html is not None:
        _write(html, _page(bundle.result, findings).encode())
