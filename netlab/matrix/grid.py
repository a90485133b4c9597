"""The cells of a table before they are run: which experiments, which fixes, what is expected, what can't be run.

Pure. What the kernel has was found out before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from netlab.capabilities.capability import Capability
from netlab.errors import NetlabError, UsageError
from netlab.experiments.catalogue import Run, Settings, choose
from netlab.experiments.roles import assign
from netlab.kubeproxy.fixes import FIXES, PLAIN, check_name
from netlab.kubeproxy.fixes import names as applicable
from netlab.matrix import Cell, Column, Row
from netlab.model import Topology
from netlab.topology import load_with_fixes


@dataclass(frozen=True, slots=True)
class Task:
    """A cell that can be run: its place in the table, and the lab it is run in, fixes and all.

    number counts all cells of the table from 1. capabilities are what the kernel has of those the experiment asks for.
    """

    number: int
    cell: Cell
    run: Run
    fixes: tuple[str, ...]
    topology: Topology
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table to run. skipped are the cells that can't be run, by their numbers, tasks all the others."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    tasks: tuple[Task, ...]
    skipped: Mapping[int, Cell]


def chosen(found: Sequence[Run], names: Sequence[str], file: str) -> list[Run]:
    """The experiments of these names in the order of the file, or all; UsageError for a name that is none."""
    wanted = {choose(found, name, file).experiment.name for name in names}
    if not names:
        choose(found, None, file)
    return [run for run in found if not names or run.experiment.name in wanted]


def columns(runs: Sequence[Run], names: Sequence[str]) -> tuple[Column, ...]:
    """The columns: plain first, always, since it is what the others are compared with; then these fixes.

    Without names: all that can be applied to the topology of one of these experiments. "a+b" is two fixes together.
    UsageError for a name that none of the topologies knows, and for a fix with itself.
    """
    known = {fix.name: fix.summary for fix in FIXES.values()}
    for run in runs:
        known |= {fix.name: fix.summary for fix in run.topology.fixes}
    asked = names or [name for run in runs for name in applicable(run.topology)]
    wanted = [name for name in dict.fromkeys(asked) if name != PLAIN]
    for name in (each for column in wanted for each in column.split("+") if each not in known):
        check_name(runs[0].topology, name)
    for name in wanted:
        if len(set(name.split("+"))) < len(name.split("+")):
            raise UsageError(f"--fix {name} has a fix twice", "name each once")
    return (Column(PLAIN), *(Column(name, "; ".join(known[each] for each in name.split("+"))) for name in wanted))


def grid(runs: Sequence[Run], across: Sequence[Column], found: Mapping[str, Capability]) -> Grid:
    """Each of these experiments with each of these fixes; found are all capabilities that the experiments ask for."""
    tasks = []
    skipped = {}
    made: dict[tuple[object, ...], Topology] = {}

    def fixed(run: Run, fixes: tuple[str, ...]) -> Topology:
        """Many experiments share a topology, and reading one takes longer than all else here."""
        key = (run.text, run.file, run.settings, run.topology.name, fixes)
        if key not in made:
            made[key] = load_with_fixes(run.text, run.file, run.settings, run.topology.name, fixes)
        return made[key]

    for number, (run, column) in enumerate(((run, column) for run in runs for column in across), 1):
        experiment = run.experiment
        fixes = () if column.fix == PLAIN else tuple(column.fix.split("+"))
        there = tuple(name for name in experiment.capabilities() if found[name].there)
        cell = Cell(experiment.name, column.fix, experiment.expected(fixes, there))
        missing = next((found[name] for name in experiment.needs if name not in there), None)
        try:
            topology = fixed(run, fixes)
            assign(topology, experiment)
        except NetlabError as error:
            skipped[number] = replace(cell, skipped=error.message)
            continue
        if missing is not None:
            skipped[number] = replace(cell, skipped=f"needs {missing.name}: {missing.reason}")
            continue
        tasks.append(Task(number, cell, run, fixes, topology, there))
    rows = tuple(Row(run.experiment.name, run.experiment.claim, run.experiment.explanation) for run in runs)
    return Grid(rows, tuple(across), tuple(tasks), skipped)


def fingerprint(runs: Sequence[Run], across: Sequence[Column], settings: Settings) -> dict[str, str]:
    """What the inputs of a table are known by, a word for each kind. settings are those that were asked for."""
    return {
        "topology and experiments": _digest(text for run in runs for text in (run.text, run.document)),
        "settings": _digest(f"{path}={value}" for path, value in settings),
        "choice of experiments": " ".join(run.experiment.name for run in runs),
        "choice of fixes": " ".join(column.fix for column in across),
    }


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
