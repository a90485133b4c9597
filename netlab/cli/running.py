"""One run of an experiment, in its lab."""

from typing import TYPE_CHECKING, NamedTuple

from netlab.cli.arguments import absolute, lab_directory
from netlab.cli.messages import Progress
from netlab.terminal import say

if TYPE_CHECKING:
    from netlab.analysis.findings import Findings
    from netlab.analysis.result import Result
    from netlab.experiments.catalogue import Run
    from netlab.lab.netns import Namespaces
    from netlab.lab.spec import Spec
    from netlab.model import Topology
    from netlab.record.environment import Environment


class Ran(NamedTuple):
    """One run: the topology with its fixes, what it showed, and what a bundle has beside it."""

    topology: "Topology"
    result: "Result"
    findings: "Findings"
    environment: "Environment | None"


def in_its_lab(
    chosen: "Run",
    fixes: tuple[str, ...],
    capabilities: tuple[str, ...],
    trials: int | None,
    root: bool | None,
    *,
    keep_frames: bool = False,
    whole: bool = False,
) -> Ran:
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
    return Ran(spec.topology, result, findings, environment)


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
