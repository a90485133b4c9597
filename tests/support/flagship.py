"""The flagship lab and its experiment, for tests that run it in a private lab."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import skips
from places import TOPOLOGIES
from private_lab import PrivateLab

from netlab.analysis.result import Outcome, Result
from netlab.capabilities.probes import probe
from netlab.experiments.catalogue import runs
from netlab.experiments.experiment import Experiment
from netlab.experiments.trials import observe_run
from netlab.kubeproxy import fixes
from netlab.model import Topology
from netlab.observe.recorder import Source
from netlab.record.recording import Recording
from netlab.topology import load

FLAGSHIP = TOPOLOGIES / "kube-proxy-reset.yaml"
DOCUMENT = FLAGSHIP.parent / "experiments" / "window-overrun.yaml"
LARGE = ("vars.client_window", "1048576")
"""The `--set` with which the burst is inside the client's window."""
WITHOUT_ENTRIES = (
    "--set",
    "namespaces.server-node.tables.inet quiet="
    "chain early { type filter hook prerouting priority raw; ct state invalid counter; notrack; }",
)
"""Options with which server-node has rules that ask conntrack, and no entry of anybody's."""


@dataclass(frozen=True, slots=True)
class Part:
    """A topology and the experiment that is run in it."""

    topology: Topology
    experiment: Experiment

    def run(
        self,
        namespaces: PrivateLab,
        trials: int,
        fix: str | None = None,
        progress: Callable[[int, int], None] | None = None,
        *,
        keep_frames: bool = False,
        source: Source | None = None,
    ) -> tuple[Result, Recording]:
        """Run it in a lab that is up; fix names the one that the topology has."""
        names = (fix,) if fix else ()
        ran = observe_run(
            self.topology,
            self.experiment,
            names,
            namespaces,  # type: ignore[arg-type]  # all that a test's experiment needs of a lab
            trials,
            progress,
            keep_frames=keep_frames,
            source=source,
        )
        return ran.result, ran.findings.timeline.recording


def part(settings: Sequence[tuple[str, str]] = (), fix: str | None = None, text: str | None = None) -> Part:
    """The flagship's window-overrun, with `--set` pairs and a fix; text is another topology's."""
    run = runs(text or FLAGSHIP.read_text(), str(FLAGSHIP), tuple(settings))[0]
    return Part(fixes.apply(run.topology, (fix,) if fix else ()), run.experiment)


def document(name: str, fix: str | None = None, text: str | None = None) -> Part:
    """A shipped experiment in its lab, or in that of the text, with a fix."""
    file = FLAGSHIP.parent / "experiments" / f"{name}.yaml"
    (run,) = runs(file.read_text(), str(file))
    topology = run.topology if text is None else load(text, str(FLAGSHIP), run.settings)
    return Part(fixes.apply(topology, (fix,) if fix else ()), run.experiment)


def run_document(
    name: str, trials: int, fix: str | None = None, text: str | None = None
) -> tuple[Result, Recording, Outcome | None]:
    """Run a shipped experiment as `document` has it; and what it expects of each trial on this kernel.

    Skips where this kernel or user lacks what the experiment needs.
    """
    part = document(name, fix, text)
    for capability in part.experiment.needs:
        skips.skip_unless_capability(capability)
    there = [each.name for each in probe(part.experiment.capabilities()).values() if each.there]
    with PrivateLab(part.topology) as namespaces:
        source = Source(text or FLAGSHIP.read_text(), fixes=(fix,) if fix else ())
        result, recording = part.run(namespaces, trials, fix, source=source)
    return result, recording, part.experiment.expected((fix,) if fix else (), there)


def over_ipv6() -> str:
    """The flagship's text with IPv6 addresses for all of its own."""
    text = FLAGSHIP.read_text()
    for ipv4, ipv6 in (
        ("192.168.0.2", '"fd00:ffff::2"'),
        ("10.0.0.1/24", '"fd00:a::1/64"'),
        ("10.0.0.2/24", '"fd00:a::2/64"'),
        ("10.0.1.1/24", '"fd00:b::1/64"'),
        ("10.0.1.2/24", '"fd00:b::2/64"'),
        ("10.1.0.0/24", '"fd00:c::/64"'),
    ):
        text = text.replace(ipv4, ipv6)
    return text


def with_timeout(given: Part, timeout_s: float) -> Part:
    """The same, with another deadline for the transfer."""
    return replace(given, experiment=given.experiment._replace(timeout_s=timeout_s))
