"""`report`: what a run showed, said again from its bundle."""

from pathlib import Path
from typing import Annotated

import typer

from netlab.cli.options import DataFormat, FormatOption, HtmlOption, LadderOption
from netlab.cli.output import check_places, check_report_options, page, write_file, write_report

app = typer.Typer()


@app.command()
def report(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `netlab run --bundle FILE` wrote.")],
    output: FormatOption = DataFormat.text,
    ladder: LadderOption = False,
    html: HtmlOption = None,
) -> None:
    """Show a run again, from its bundle.

    On any machine, without privilege and without its lab.
    """
    from netlab.analysis.findings import analyse
    from netlab.report.bundle import read

    check_report_options(output, ladder=ladder)
    check_places(html)
    bundle = read(file)
    findings = analyse(bundle.recording)
    write_report(bundle.result, findings, output, ladder=ladder)
    if html is not None:
        write_file(html, page(bundle.result, findings, bundle.capture).encode())
