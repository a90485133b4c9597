"""`run`: an experiment, in a lab that is up or that is built for it."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

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
from netlab.cli.messages import Progress, counted
from netlab.cli.options import (
    DataFormat,
    EveryInterfaceOption,
    FixOption,
    FormatOption,
    HtmlOption,
    LadderOption,
    NameOption,
    RootOption,
    SetOption,
    complete_experiment,
    complete_lab,
    complete_topology,
    whole,
)
from netlab.cli.output import check_places, check_report_options, page, write_file, write_report
from netlab.errors import UsageError
from netlab.terminal import columns, say, write

if TYPE_CHECKING:
    from netlab.analysis.findings import Findings
    from netlab.analysis.result import Result
    from netlab.experiments.catalogue import Run
    from netlab.lab.netns import Namespaces
    from netlab.lab.spec import Spec
    from netlab.model import Topology
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
            autocompletion=complete_topology,
        ),
    ] = None,
    lab: Annotated[
        str | None,
        typer.Option("--lab", "-l", metavar="LAB", help="In this lab, which is up.", autocompletion=complete_lab),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", metavar="N", parser=whole(1), help="How many trials; left out: as the document says, else 20."
        ),
    ] = None,
    settings: SetOption = None,
    fix: FixOption = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare", metavar="NAMES", help="Without a fix, then with each of these: drop-invalid,be-liberal."
        ),
    ] = None,
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
    every_interface: EveryInterfaceOption = False,
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

    check_report_options(output, ladder=ladder)
    if compare is not None:
        _check_compared(fix=fix, ladder=ladder, pcapng=pcapng, bundle=bundle, expect=expect)
    if every_interface and pcapng is None:
        raise UsageError("--every-interface is about the file that --pcapng writes", "add --pcapng FILE")
    check_places(html, pcapng, bundle)
    chosen = _chosen(
        one_lab(topology, lab if lab is None else lab_name(lab)), experiment, parse_settings(settings), name
    )
    capabilities = runner.there(chosen, probe(chosen.experiment.capabilities()))
    fixes = tuple(dict.fromkeys(fix or ()))
    if compare is not None:
        sys.exit(_compare(chosen, _compared(chosen, compare), capabilities, trials, root, output, html))
    ran = _in_its_lab(
        chosen, fixes, capabilities, trials, root, keep_frames=pcapng is not None, whole=bundle is not None
    )
    result, findings = ran.result, ran.findings
    write_report(result, findings, output, ladder=ladder)
    capture = None
    if pcapng is not None:
        from netlab.report.packets import render

        capture = render(pcapng.name, result, findings, drawn_only=True, every_interface=every_interface)
        write_file(pcapng, capture.data)
    if html is not None:
        write_file(html, page(result, findings, capture).encode())
    if bundle is not None and ran.environment is not None:
        from netlab.report import bundle as bundles

        write_file(bundle, bundles.render(ran.topology, result, findings, ran.environment))
        if (recorded := len(findings.timeline.recording.flows)) < len(result.trials):
            held = f"{counted(recorded, 'trial')} of {len(result.trials):,}"
            say(f"netlab: {bundle} has the packets of {held}, which is as much as can be read again")
    sys.exit(result.exit_code(expect))


class _Ran(NamedTuple):
    """One run: the topology with its fixes, what it showed, and what a bundle has beside it."""

    topology: "Topology"
    result: "Result"
    findings: "Findings"
    environment: "Environment | None"


def _in_its_lab(
    chosen: "Run",
    fixes: tuple[str, ...],
    capabilities: tuple[str, ...],
    trials: int | None,
    root: bool | None,
    *,
    keep_frames: bool = False,
    whole: bool = False,
) -> _Ran:
    """Run the experiment with these fixes, in a lab that is left as it was found; whole: with all that a bundle has."""
    from netlab.experiments import run as runner
    from netlab.lab.spec import Spec
    from netlab.linux import interrupts
    from netlab.topology import load_with_fixes

    fixed = load_with_fixes(chosen.text, chosen.file, chosen.settings, chosen.topology.name, fixes)
    spec = Spec(fixed, chosen.text, absolute(chosen.file), chosen.settings, fixes)
    directory = lab_directory(spec.topology.name)
    with runner.standing(directory, spec, None if root is None else not root) as spec, interrupts.let_through():
        namespaces = runner.namespaces(directory)
        count = trials or chosen.experiment.trials
        result, findings = _run(
            namespaces, spec, chosen, capabilities, count, keep_frames=keep_frames or whole, whole=whole
        )
        environment = _environment(namespaces, spec) if whole else None
    return _Ran(spec.topology, result, findings, environment)


def _check_compared(**others: object) -> None:
    """UsageError where --compare stands beside an option that is about one run."""
    given = [f"--{name}" for name, value in others.items() if value]
    if given:
        raise UsageError(f"--compare makes several runs, and {given[0]} is about one", "leave one of them out")


def _compared(chosen: "Run", names: str) -> list[tuple[str, ...]]:
    """The fixes of each run: none first, then each that is named, "a+b" for two together; UsageError for a name that is
    none."""
    from netlab.kubeproxy.fixes import check_name

    wanted = [tuple(dict.fromkeys(each.strip().split("+"))) for each in names.split(",")]
    for each in (each for fixes in wanted for each in fixes):
        check_name(chosen.topology, each)
    return [(), *dict.fromkeys(wanted)]


def _compare(
    chosen: "Run",
    compared: list[tuple[str, ...]],
    capabilities: tuple[str, ...],
    trials: int | None,
    root: bool | None,
    output: DataFormat,
    html: Path | None,
) -> int:
    """Run it with each of these fixes, one run after the other; the exit code: 1 before 3 before 0."""
    from netlab.experiments import run as runner
    from netlab.lab.spec import Spec
    from netlab.report import compare

    plain = Spec(chosen.topology, chosen.text, absolute(chosen.file), chosen.settings, ())
    # One lab for all, which each run changes and changes back: a process can hold no second one.
    with runner.standing(lab_directory(chosen.topology.name), plain, None if root is None else not root):
        runs = [_in_its_lab(chosen, fixes, capabilities, trials, root) for fixes in compared]
    results = [ran.result for ran in runs]
    write(compare.as_json(results) if output is DataFormat.json else compare.render(results, columns()))
    if html is not None:
        from netlab.report.html.compare import render

        write_file(html, render([(ran.result, ran.findings) for ran in runs]).encode())
    codes = {result.exit_code() for result in results}
    return next(code for code in (1, 3, 0) if code in codes)


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
