"""`run`: an experiment, in a lab that is up or that is built for it."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netlab.cli.arguments import (
    absolute,
    find_lab,
    is_lab,
    lab_directory,
    lab_name,
    one_lab,
    parse_settings,
    topology_file,
    topology_here,
)
from netlab.cli.messages import Progress
from netlab.cli.options import (
    DataFormat,
    FixOption,
    FormatOption,
    HtmlOption,
    LadderOption,
    NameOption,
    RootOption,
    SetOption,
    complete_experiment,
    complete_lab,
    whole,
)
from netlab.cli.output import check_places, check_report_options, page, write_file, write_report
from netlab.errors import UsageError
from netlab.terminal import say

if TYPE_CHECKING:
    from netlab.analysis.findings import Findings
    from netlab.analysis.result import Result
    from netlab.experiments.catalogue import Run
    from netlab.lab.netns import Namespaces
    from netlab.lab.spec import Spec
    from netlab.record.environment import Environment

app = typer.Typer()


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
    lab: Annotated[
        str | None,
        typer.Option("--lab", "-l", metavar="LAB", help="In this lab, which is up.", autocompletion=complete_lab),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", metavar="N", parser=whole(1), help="How often to try; left out: as the document says, else 20."
        ),
    ] = None,
    settings: SetOption = None,
    fix: FixOption = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            "--experiment",
            "--trigger",
            "-e",
            metavar="NAME",
            help="Which experiment; left out: the first.",
            autocompletion=complete_experiment,
        ),
    ] = None,
    expect: Annotated[
        Expectation | None,
        typer.Option("--expect", help="What exit code 0 stands for; left out: what the experiment's document expects."),
    ] = None,
    name: NameOption = None,
    root: RootOption = None,
    output: FormatOption = DataFormat.text,
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
    """Run an experiment and say what the kernel did.

    It builds the lab if it isn't up, and leaves it as it was.
    """
    from netlab.capabilities.probes import probe
    from netlab.experiments import run as runner
    from netlab.lab.spec import Spec
    from netlab.linux import interrupts
    from netlab.topology import load_with_fixes

    check_report_options(output, ladder=ladder)
    check_places(html, pcapng, bundle)
    chosen = _chosen(
        one_lab(topology, lab if lab is None else lab_name(lab)), experiment, parse_settings(settings), name
    )
    fixes = tuple(dict.fromkeys(fix or ()))
    fixed = load_with_fixes(chosen.text, chosen.file, chosen.settings, chosen.topology.name, fixes)
    spec = Spec(fixed, chosen.text, absolute(chosen.file), chosen.settings, fixes)
    capabilities = runner.there(chosen, probe(chosen.experiment.capabilities()))
    directory = lab_directory(spec.topology.name)
    with runner.standing(directory, spec, None if root is None else not root) as spec, interrupts.let_through():
        keep_frames = pcapng is not None or bundle is not None
        namespaces = runner.namespaces(directory)
        count = trials or chosen.experiment.trials
        result, findings = _run(
            namespaces, spec, chosen, capabilities, count, keep_frames=keep_frames, whole=bundle is not None
        )
        environment = _environment(namespaces, spec) if bundle is not None else None
    html_page = page(result, findings) if html is not None or bundle is not None else ""
    write_report(result, findings, output, ladder=ladder)
    if html is not None:
        write_file(html, html_page.encode())
    if pcapng is not None:
        from netlab.report.packets import render

        write_file(pcapng, render(result, findings.timeline.recording, drawn_only=True))
    if bundle is not None and environment is not None:
        from netlab.report import bundle as bundles

        write_file(bundle, bundles.render(spec.topology, result, findings.timeline.recording, environment, html_page))
    sys.exit(result.exit_code(expect))


def _chosen(
    topology: str | None, experiment: str | None, settings: tuple[tuple[str, str], ...], name: str | None
) -> "Run":
    """The experiment to run: of a file, or of a lab that is up."""
    from netlab.experiments import catalogue
    from netlab.lab.rundir import labs, run_directory
    from netlab.lab.standing import check_standing
    from netlab.topology import read_text

    nothing_here = topology is None and topology_here() is None
    if is_lab(topology) or (nothing_here and labs(run_directory())):
        directory, state = find_lab(topology)
        check_standing(state)
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
    text = read_text(file)
    (chosen,) = catalogue.runs(text, file, settings, name, lambda found: [catalogue.choose(found, experiment, file)])
    if chosen.file != file and chosen.document != text:
        say(f"netlab: {chosen.experiment.name} is run in the lab of {chosen.file}, which its document names")
        say(f"  hint: for the lab of {file} leave `topology` out of the document")
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
    whole: bool,
) -> tuple["Result", "Findings"]:
    """Run the experiment in the lab, which is up; say where the window model and the kernel disagree."""
    from netlab.experiments import run as runner

    progress = Progress(f"{spec.topology.name}, trials", trials)
    try:
        result, findings, disagreements = runner.run(
            namespaces,
            spec,
            chosen,
            capabilities,
            trials,
            lambda count, _total: progress.at(count),
            keep_frames=keep_frames,
            whole=whole,
        )
    finally:
        progress.end()
    for sentence in disagreements[:_TOLD]:
        say(f"netlab: model and kernel disagree: {sentence}")
    if len(disagreements) > _TOLD:
        say(f"netlab: model and kernel disagree about {len(disagreements) - _TOLD:,} more packets")
    return result, findings


def _environment(namespaces: "Namespaces", spec: "Spec") -> "Environment":
    """What the kernel tells of the lab beside what was observed, for a bundle."""
    from netlab.lab.environment import collect

    return collect(namespaces, [netns.name for netns in spec.topology.namespaces])
