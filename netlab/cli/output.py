"""What commands write: reports on stdout, pictures into files."""

from pathlib import Path
from typing import TYPE_CHECKING

from netlab.cli.arguments import check_place
from netlab.cli.options import DataFormat
from netlab.errors import UsageError
from netlab.terminal import columns, say, show, write

if TYPE_CHECKING:
    from netlab.analysis.findings import Findings
    from netlab.analysis.result import Result
    from netlab.report.packets import Written


def check_report_options(output: DataFormat, *, ladder: bool) -> None:
    """UsageError for options of a report that don't go together."""
    if ladder and output is DataFormat.json:
        raise UsageError("--ladder is text, and --format json is not")


def check_places(*files: Path | None) -> None:
    """UsageError where one of these files could not be written."""
    for file in files:
        if file is not None:
            check_place(file)


def write_file(file: Path, data: bytes) -> None:
    """Write a file, whole or not at all, and say so; OSError."""
    from netlab.linux.files import write_whole

    write_whole(file, data)
    say(f"wrote {file}")


def write_report(result: "Result", findings: "Findings", output: DataFormat, *, ladder: bool) -> None:
    """What a run showed, on stdout, with the ladder of its packets where it is wanted."""
    from netlab.report import json as as_json
    from netlab.report import text as as_text

    if output is DataFormat.json:
        write(as_json.render(result))
    else:
        show(as_text.pieces(result, columns()))
    if ladder and result.trials:
        from netlab.report import ladder as as_ladder
        from netlab.report.sequence import build as build_ladder

        _, trial = result.shown()
        write("\n")
        show(as_ladder.pieces(build_ladder(findings, trial.flow, trial), columns()))


def page(result: "Result", findings: "Findings", capture: "Written | None" = None) -> str:
    """What a run showed, as one HTML file; capture has its packets."""
    from netlab.report import html as as_html

    return as_html.render(result, findings, capture)
