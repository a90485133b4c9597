"""This machine: `doctor`."""

import sys

import typer

from netlab.cli.options import DataFormat, FormatOption
from netlab.terminal import list_columns, show, write

app = typer.Typer()


@app.command()
def doctor(
    output: FormatOption = DataFormat.text,
) -> None:
    """Check what this kernel and this user can do.

    It says what to do about what is missing.
    """
    from netlab.capabilities import doctor as checkup

    found = checkup.checks()
    if output is DataFormat.json:
        write(checkup.render_json(found))
    else:
        show(checkup.pieces(found, list_columns()))
    sys.exit(checkup.exit_code(found))
