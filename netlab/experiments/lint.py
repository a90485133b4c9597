"""Whether a file is sound: its topology alone and with each fix, its experiments, what nft says of its tables."""

from __future__ import annotations

from typing import NamedTuple

from netlab.errors import Problem, UnsupportedError, UsageError
from netlab.experiments import catalogue
from netlab.experiments.roles import assign
from netlab.lab import tables
from netlab.lab.spec import Spec
from netlab.topology import with_each_fix


class Sound(NamedTuple):
    """What was found sound: a lab, None where the file is one experiment's; the experiments by name; how many fixes the
    topology has of its own. unchecked is why nft could not be asked about the tables, empty where it was; warnings are
    what is allowed in the topology, and hardly meant."""

    lab: str | None
    experiments: tuple[str, ...]
    fixes: int = 0
    unchecked: str = ""
    warnings: tuple[Problem, ...] = ()


def lint(
    text: str, file: str, pairs: tuple[tuple[str, str], ...], name: str | None, outside: catalogue.Outside
) -> Sound:
    """Check a file with these `--set` pairs; TopologyError with each problem and its place, UsageError.

    outside is told the path of each file that lies elsewhere than the one that names it, before it is read.
    """
    runs = catalogue.runs(text, file, pairs, name, outside=outside)
    for run in runs:
        try:
            assign(run.topology, run.experiment)
        except UsageError as error:
            raise UsageError(f"{file}: the experiment {run.experiment.name}: {error.message}", error.hint) from None
    names = tuple(run.experiment.name for run in runs)
    if catalogue.is_document(text, file):
        return Sound(None, names)
    settings, _ = catalogue.parted(pairs)
    sound = with_each_fix(text, file, settings, name, catalogue.load)
    unchecked = ""
    try:
        asked = set[tuple[object, ...]]()
        for fix, topology in sound.items():
            named = tuple(tables.interfaces_named(topology))
            if named in asked:
                continue
            asked.add(named)
            tables.check(Spec(topology, text, file, settings, (fix,)))
    except UnsupportedError as error:
        unchecked = error.message
    warnings = catalogue.warnings(text, file, settings, name)
    return Sound(sound[""].name, names, len(sound) - 1, unchecked, warnings)
