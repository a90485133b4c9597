"""`run --compare`: an experiment without a fix and with some, side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

from netlab.cli.arguments import absolute, lab_directory
from netlab.cli.options import DataFormat
from netlab.cli.output import write_file
from netlab.cli.running import in_its_lab
from netlab.errors import UsageError
from netlab.terminal import columns, write

if TYPE_CHECKING:
    from netlab.experiments.catalogue import Run


def check(**others: object) -> None:
    """UsageError where --compare stands beside an option that is about one run."""
    given = [f"--{name}" for name, value in others.items() if value]
    if given:
        raise UsageError(f"--compare makes several runs, and {given[0]} is about one", "leave one of them out")


def compared(chosen: "Run", names: str) -> list[tuple[str, ...]]:
    """The fixes of each run: none first, then each that is named, "a+b" for two together; UsageError for a name that is
    none."""
    from netlab.kubeproxy.fixes import check_name

    wanted = [tuple(dict.fromkeys(each.strip().split("+"))) for each in names.split(",")]
    for each in (each for fixes in wanted for each in fixes):
        check_name(chosen.topology, each)
    return [(), *dict.fromkeys(wanted)]


def compare(
    chosen: "Run",
    runs: list[tuple[str, ...]],
    capabilities: tuple[str, ...],
    trials: int | None,
    root: bool | None,
    output: DataFormat,
    html: Path | None,
) -> int:
    """Run it with each of these fixes, one run after the other; the exit code: 1 before 3 before 0."""
    from netlab.experiments import run as runner
    from netlab.lab.spec import Spec
    from netlab.report import compare as as_text

    plain = Spec(chosen.topology, chosen.text, absolute(chosen.file), chosen.settings, ())
    # One lab for all, which each run changes and changes back: a process can hold no second one.
    with runner.standing(lab_directory(chosen.topology.name), plain, None if root is None else not root):
        made = [in_its_lab(chosen, fixes, capabilities, trials, root) for fixes in runs]
    results = [ran.result for ran in made]
    write(as_text.as_json(results) if output is DataFormat.json else as_text.render(results, columns()))
    if html is not None:
        from netlab.report.html.compare import render

        write_file(html, render([(ran.result, ran.findings) for ran in made]).encode())
    codes = {result.exit_code() for result in results}
    return next(code for code in (1, 3, 0) if code in codes)
