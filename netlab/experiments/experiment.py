"""An experiment as a document says it: a claim, steps in the order of time, and what is to come of it. Pure values.

`experiments/resolve.py` makes these values, `experiments/trials.py` runs them. What a step's verbs mean is in
`stimuli/` and `conditions/`, one file each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

from netlab.analysis.result import Outcome
from netlab.kubeproxy.fixes import PLAIN
from netlab.model import Address

OTHERWISE = "otherwise"
"""Under `expect`: a kernel with none of the capabilities named beside it."""

TIMEOUT_S = 10.0
"""After this long a transfer counts as stalled: some five doublings of TCP's smallest retransmission timeout, 0.2 s."""

WITHIN_S = 5.0
"""How long a step waits for what is to be observed after it, where it doesn't say."""

PAYLOAD_BYTES = 1_000_000

PAYLOAD_MAX_BYTES = 1 << 28
"""The longest payload: a trial holds it twice, in memory."""

FIRST = "first"
"""The name of the connection under study: the one that a document's `connect` makes without naming it."""

TRIALS = 20
"""How often `netlab run` runs an experiment where neither the document nor its caller says."""


class Action(NamedTuple):
    """A verb and its arguments, as plain values: a stimulus, or a condition that is to be observed.

    unless are the fixes with which the condition is not looked for.
    """

    name: str
    arguments: Mapping[str, Any]
    unless: tuple[str, ...] = ()

    def describe(self) -> str:
        """As one line: `send: {from: server, bytes: 32768}`."""
        words = ", ".join(f"{key}: {_yaml(value)}" for key, value in self.arguments.items())
        return f"{self.name}: {{{words}}}" if words else self.name


def _yaml(value: Any) -> str:
    """An argument as a document has it; None is a route's `default`."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "default"}[value]
    return str(value)


class Step(NamedTuple):
    """What is done, if anything, and what must then be observed within so many seconds.

    unless are the fixes with which the step is left out.
    """

    stimulus: Action | None
    observe: tuple[Action, ...] = ()
    within_s: float = WITHIN_S
    unless: tuple[str, ...] = ()


class Expectation(NamedTuple):
    """An outcome; capability is what the kernel must have for it to be expected, None where it needs nothing."""

    outcome: Outcome
    capability: str | None = None


class Way(StrEnum):
    """By which of its addresses a Service is reached."""

    CLUSTER_IP = "cluster-ip"
    NODE_PORT = "node-port"
    EXTERNAL_IP = "external-ip"
    LOAD_BALANCER_IP = "load-balancer-ip"


class ToService(NamedTuple):
    """The client connects to a Service, by its cluster IP, or another way.

    port is one of the Service's own, None for its first of TCP. node is the one whose address a node port is at, None
    for the nearest to the client. ip_version is 4 or 6, None for that of the Service's first cluster IP. address is the
    one to use where there are several, None for the first.
    """

    service: str
    port: int | None = None
    way: Way = Way.CLUSTER_IP
    node: str | None = None
    ip_version: int | None = None
    address: Address | None = None


class ToSocket(NamedTuple):
    """The client connects to a port of a namespace: at this address of it, or the first of that IP version.

    served_by are the namespace and port that the lab's own rules translate that to; None where nothing does.
    """

    netns: str
    port: int
    ip_version: int | None = None
    address: Address | None = None
    served_by: tuple[str, int] | None = None


Target: TypeAlias = ToService | ToSocket
"""Where the client connects."""


class Experiment(NamedTuple):
    """A whole document.

    client connects to the target, behind which a server of netlab's own sends payload_bytes; unless it listens, nobody
    does, or a program of the lab. trials is how often it is run where its caller doesn't say. topology is the file of
    the lab that it is run in, None for the one that lists the document; settings are the `--set` pairs that it needs
    there. needs are the capabilities without which it can't be run.
    kernels, remedy and see are for who has its claim in production: which kernels do so, what helps beside the fixes,
    names and addresses of what to read.
    expect has what is expected of each fix ("plain" without any): the first that holds.
    """

    name: str
    claim: str
    steps: tuple[Step, ...]
    client: str
    target: Target
    payload_bytes: int = PAYLOAD_BYTES
    trials: int = TRIALS
    timeout_s: float = TIMEOUT_S
    needs: tuple[str, ...] = ()
    expect: tuple[tuple[str, tuple[Expectation, ...]], ...] = ()
    explanation: str = ""
    kernels: str = ""
    remedy: str = ""
    see: tuple[tuple[str, str], ...] = ()
    topology: str | None = None
    settings: tuple[tuple[str, str], ...] = ()
    listens: bool = True

    def actions(self) -> Iterator[Action]:
        """Each step's stimulus and conditions, in order."""
        for step in self.steps:
            if step.stimulus is not None:
                yield step.stimulus
            yield from step.observe

    def capabilities(self) -> tuple[str, ...]:
        """All that must be known of the kernel to run it and to say what is expected, each once."""
        asked = [each.capability for _, expected in self.expect for each in expected if each.capability is not None]
        return tuple(dict.fromkeys((*self.needs, *asked)))

    def with_fixes(self, fixes: Sequence[str]) -> Experiment:
        """The experiment as it is run with these fixes: without the steps and conditions that they leave out."""
        steps = tuple(
            step._replace(observe=tuple(each for each in step.observe if not set(fixes) & set(each.unless)))
            for step in self.steps
            if not set(fixes) & set(step.unless)
        )
        return self._replace(steps=steps)

    def expected(self, fixes: Sequence[str], capabilities: Collection[str]) -> Outcome | None:
        """What is expected with these fixes on a kernel with these capabilities; None where the document says nothing.

        Several fixes together are looked up as "a+b", in any order.
        """
        wanted = sorted(fixes or [PLAIN])
        for expected in (each for name, each in self.expect if sorted(name.split("+")) == wanted):
            for outcome, capability in expected:
                if capability is None or capability in capabilities:
                    return outcome
        return None

    def has(self, stimulus: str, connection: str | None = None) -> bool:
        """Whether a step has that stimulus, on the connection of that name if there is one."""
        found = [step.stimulus for step in self.steps if step.stimulus is not None and step.stimulus.name == stimulus]
        return any(connection in (None, each.arguments.get("connection", FIRST)) for each in found)

    def observes(self, condition: str) -> tuple[Mapping[str, Any], ...]:
        """The arguments of that condition wherever a step asks for it."""
        return tuple(action.arguments for step in self.steps for action in step.observe if action.name == condition)

    def ports(self) -> frozenset[int]:
        """The ports that the steps name: `port: 53`, `data_port: 30000`."""
        found = (action.arguments.get(key) for action in self.actions() for key in ("port", "data_port"))
        return frozenset(port for port in found if port is not None)

    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that the steps name, in order, each once: `in: client-node`, `link: server-node:eth0`."""
        found = (action.arguments.get(key) for action in self.actions() for key in ("in", "link"))
        return tuple(dict.fromkeys(place.partition(":")[0] for place in found if place is not None))
