"""`run`: an experiment, in a lab that is up or that is built for it."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netlab.cli import comparing
from netlab.cli.arguments import (
    find_lab,
    is_lab,
    lab_name,
    one_lab,
    parse_settings,
    topology_file,
    topology_here,
)
from netlab.cli.messages import counted
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
    complete_fixes,
    complete_lab,
    complete_topology,
    whole,
)
from netlab.cli.output import check_places, check_report_options, page, write_file, write_report
from netlab.cli.running import in_its_lab
from netlab.errors import UsageError
from netlab.terminal import say

if TYPE_CHECKING:
    from netlab.experiments.catalogue import Run

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
            "--compare",
            metavar="NAMES",
            help="Without a fix, then with each of these: drop-invalid,be-liberal.",
            autocompletion=complete_fixes,
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
        typer.Option("--expect", help="Result that exits with 0; left out: what the experiment's document expects."),
    ] = None,
    name: NameOption = None,
    root: RootOption = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            "--kernel", metavar="KERNEL", help="Under another kernel: a version (6.1, latest), or an image's file."
        ),
    ] = None,
    output: FormatOption = DataFormat.text,
    ladder: LadderOption = False,
    html: HtmlOption = None,
    pcapng: Annotated[
        Path | None, typer.Option("--pcapng", metavar="FILE", help="Write one trial's packets, with comments.")
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
    check_report_options(output, ladder=ladder)
    if compare is not None:
        comparing.check(fix=fix, ladder=ladder, pcapng=pcapng, bundle=bundle, expect=expect)
    if every_interface and pcapng is None:
        raise UsageError("--every-interface is about the file that --pcapng writes", "add --pcapng FILE")
    check_places(html, pcapng, bundle)
    if kernel is not None:
        from netlab.cli.kernel import run_this_under

        sys.exit(run_this_under(kernel, html, pcapng, bundle))
    from netlab.capabilities.probes import probe
    from netlab.experiments import run as runner

    chosen = _chosen(
        one_lab(topology, lab if lab is None else lab_name(lab)), experiment, parse_settings(settings), name
    )
    capabilities = runner.there(chosen, probe(chosen.experiment.capabilities()))
    fixes = tuple(dict.fromkeys(fix or ()))
    if compare is not None:
        sys.exit(
            comparing.compare(chosen, comparing.compared(chosen, compare), capabilities, trials, root, output, html)
        )
    ran = in_its_lab(
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
            say(f"netlab: {bundle} has the packets of {held}, as many as a bundle can hold")
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
                f"{chosen.experiment.name} runs in the lab of {chosen.file}, not in {state.lab}",
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
