"""`netlab up`: builds the lab and says what was done; and reads the command's plain forms without typer.

To import typer takes as long as to build a small lab. So words that can mean one thing only, as people and scripts
write them, are read here. All others (help, mistakes, `--dry-run`, `--name=x`, `-qv`) are typer's to read, in
`lifecycle.py`; and that it reads these in the same way is what a test holds.
"""

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from netlab.cli.arguments import (
    absolute,
    lab_directory,
    parse_settings,
    problems_json,
    read_spec,
    regular_text,
    tell_warnings,
    topology_file,
    topology_here,
)
from netlab.cli.messages import Progress, counted
from netlab.escapes import Lines, as_json, line
from netlab.linux import interrupts
from netlab.terminal import say, write

if TYPE_CHECKING:
    from netlab.errors import Problem
    from netlab.lab.lifecycle import Outcome
    from netlab.lab.rest import AtRest
    from netlab.lab.steps import Step
    from netlab.lab.work import Done


class Options(NamedTuple):
    """What `up` is told; root None means as the lab is, or as this user is."""

    topology: str | None = None
    settings: tuple[str, ...] = ()
    fixes: tuple[str, ...] = ()
    name: str | None = None
    root: bool | None = None
    dry_run: bool = False
    quiet: bool = False
    verbose: bool = False
    output: str = "text"


def plain(words: Sequence[str]) -> Options | None:
    """What the words after `netlab up` stand for; None where typer has to say."""
    options = Options()
    while words:
        match words:
            case ["--root" | "--rootless" as word, *words]:
                options = options._replace(root=word == "--root")
            case ["--quiet" | "-q", *words]:
                options = options._replace(quiet=True)
            case ["--verbose" | "-v", *words]:
                options = options._replace(verbose=True)
            case ["--format", "text" | "json" as word, *words]:
                options = options._replace(output=word)
            case ["--name", word, *words] if _is_value(word):
                options = options._replace(name=word)
            case ["--set", word, *words] if _is_value(word):
                options = options._replace(settings=(*options.settings, word))
            case ["--fix", word, *words] if _is_value(word):
                options = options._replace(fixes=(*options.fixes, word))
            case [word, *words] if options.topology is None and _is_value(word):
                options = options._replace(topology=word)
            case _:
                return None
    return options


def _is_value(word: str) -> bool:
    return word == "-" or (word != "" and not word.startswith("-"))


def build(options: Options) -> None:
    """Build a lab; a lab that is up is made to follow its topology."""
    interrupts.stop_on_signals()
    rootless = None if options.root is None else not options.root
    if not options.dry_run and (found := _lab_at_rest(options, rootless)) is not None:
        _tell_at_rest(options, found)
        return
    gc.disable()  # what is made lives until the end, and a large lab's values take a tenth of the time to walk over
    from netlab.lab import lifecycle

    spec = read_spec(options.topology, parse_settings(options.settings), options.fixes, options.name)
    file = topology_file(options.topology)
    if not options.quiet and options.output == "text":
        tell_warnings(file, spec.warnings)
    directory = lab_directory(spec.topology.name)
    if options.dry_run:
        from netlab.lab import plan

        steps = lifecycle.pending(directory, spec)
        if options.output == "json":
            write(plan.as_json(steps, spec.topology))
            return
        write(plan.as_text(steps, f"{spec.topology.name}-") if steps else "")
        return
    topology = spec.topology
    total = sum(1 + len(n.routes) + len(n.sysctls) for n in topology.namespaces) + 6 * len(topology.pairs())
    progress = Progress(f"building {topology.name}, steps", total, quiet=options.quiet or options.verbose)

    def show(step: "Step") -> None:
        say(step.describe())

    done: Done = show if options.verbose else progress.step
    try:
        outcome = lifecycle.up(directory, spec, rootless=rootless, done=done, waiting=progress.waiting)
    finally:
        progress.end()
    if options.output == "json":
        did = "built" if outcome.built else "changed" if outcome.steps else "nothing"
        told = [step.describe() for step in outcome.steps]
        write(_as_json(topology.name, did, told, outcome.spec.fixes, file, spec.warnings))
    elif not options.quiet:
        say(outcome_text(outcome, verbose=options.verbose))


def _tell_at_rest(options: Options, found: "AtRest") -> None:
    file = topology_file(options.topology)
    if options.output == "json":
        fixes = tuple(dict.fromkeys(options.fixes))
        write(_as_json(found.lab, "nothing", [], fixes, file, found.warnings))
    elif not options.quiet:
        tell_warnings(file, found.warnings)
        say(nothing_to_do(found.lab))


def _as_json(
    lab: str, did: str, steps: Sequence[str], fixes: Sequence[str], file: str, warnings: "Sequence[Problem]"
) -> str:
    """What `up` did: built, changed or nothing; and the steps that it took for it."""
    told = {"lab": lab, "did": did, "steps": [*steps], "fixes": [*fixes], "warnings": problems_json(file, warnings)}
    return as_json(told)


def _lab_at_rest(options: Options, rootless: bool | None) -> "AtRest | None":
    """The lab that is just what is asked for; None where that isn't known without a closer look."""
    from netlab.lab.rundir import labs, run_directory

    there = labs(run_directory())
    file = None if options.topology is None and topology_here() is None else topology_file(options.topology)
    if file is None or not (options.name in there if options.name is not None else there):
        return None
    text = regular_text(file)
    if text is None:
        return None
    from netlab.lab.rest import lab_at_rest
    from netlab.lab.state import Asked

    asked = Asked(absolute(file), parse_settings(options.settings), tuple(dict.fromkeys(options.fixes)))
    return lab_at_rest(asked, text, options.name, rootless)


def nothing_to_do(lab: str) -> Lines:
    """What `up` says of a lab that is as its topology says."""
    return Lines(f"lab {lab} is up: nothing to do")


def outcome_text(outcome: "Outcome", *, verbose: bool) -> Lines:
    """What `up` did, in a line, and a line for each change to a lab that was up."""
    topology, fixes = outcome.spec.topology, outcome.spec.fixes
    before = "removed what an interrupted command had left; " if outcome.leftovers else ""
    if outcome.built:
        counts = [
            counted(len(topology.namespaces), "namespace"),
            counted(len(topology.pairs()), "link"),
            counted(len(topology.services), "service"),
        ]
        more = f", with {' and '.join(fixes)}" if fixes else ""
        return Lines(f"{before}lab {topology.name} is up: {', '.join(counts)}{more}")
    if not outcome.steps:
        return nothing_to_do(topology.name)
    lines = [f"lab {topology.name} is up: {counted(len(outcome.steps), 'change')}"]
    if not verbose:
        lines += [f"  {line(step.describe())}" for step in outcome.steps]
    return Lines("\n".join(lines))
