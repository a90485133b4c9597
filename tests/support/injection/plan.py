"""Which faults there are: for the calls that a command makes, and for the situations that it may find; and a sample of
them that has some of each kind."""

from __future__ import annotations

import errno
import random
import signal
from collections import defaultdict
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

from injection.calls import CALLS, Call
from injection.situations import SITUATIONS, Situation, concerns

_BY_NAME = {call.name: call for call in CALLS}

WEIGHTS = {
    "up": 24,
    "up, changes": 24,
    "down": 14,
    "fix": 12,
    "exec": 8,
    "capture": 7,
    "run": 5,
    "run, builds": 4,
    "matrix": 2,
}
"""How many of 100 faults each command gets; those that take longest get fewest."""

_AFTER_S = (0.0005, 0.002, 0.01)


class Injection(NamedTuple):
    """A fault of the plan: asked is what `engine.serve` is told; row and kind are its place in the table."""

    scenario: str
    row: str
    kind: str
    asked: dict[str, Any]

    def name(self) -> str:
        """By which `scripts/faults --only` finds it again."""
        if "situation" in self.asked:
            return str(self.asked["situation"])
        kind, number, (process, index), moment, delay_s = self.asked["fault"]
        started = ":started" if self.asked["started"] else ""
        return f"{self.scenario}:{kind}:{number}:{process}.{index}:{moment}:{delay_s}{started}"


def injection(name: str) -> Injection:
    """The fault of that name."""
    if name in SITUATIONS:
        return _happening(SITUATIONS[name])
    scenario, kind, number, place, moment, delay_s, *started = name.split(":")
    process, index = place.split(".")
    fault = [kind, int(number), [int(process), int(index)], moment, float(delay_s)]
    asked = {"scenario": scenario, "fault": fault, "started": bool(started)}
    return Injection(scenario, "", _kind(kind, int(number), moment), asked)


def situations(commands: Container[str], privilege: str, *, root: bool, count: int, seed: int) -> list[Injection]:
    """Up to so many situations that these commands on these labs may find, the same for the same seed."""
    found = [one for one in SITUATIONS.values() if one.command in commands and concerns(one, privilege, root=root)]
    random.Random(seed).shuffle(found)
    return [_happening(one) for one in found[:count]]


def mixed(injections: Sequence[Injection], seed: int) -> list[Injection]:
    """The same, so that some of each kind come early; in the same order for the same seed."""
    return random.Random(seed).sample(injections, len(injections))


def _happening(one: Situation) -> Injection:
    return Injection(one.command, one.step, one.kind, {"scenario": one.command, "situation": one.name()})


def _kind(kind: str, number: int, moment: str) -> str:
    if kind == "errno":
        return errno.errorcode[number]
    return "holder killed" if kind == "holder" else f"{signal.Signals(number).name} {moment}"


def _of_call(call: Call) -> list[tuple[str, int, str, float]]:
    """Every fault of one call: kind, number, moment, delay."""
    faults = [("errno", number, "before", 0.0) for number in call.errnos]
    faults += [("signal", int(signal.SIGKILL), moment, 0.0) for moment in ("before", "in")]
    faults += [("signal", number, "in", 0.0) for number in (1, 2, 15)]
    faults += [("signal", number, "after", delay) for number in (1, 2, 9, 15) for delay in _AFTER_S]
    return [*faults, ("holder", 9, "in", 0.0)]


def sample(made: dict[str, Sequence[Sequence[Any]]], count: int, seed: int) -> list[Injection]:
    """So many faults, the same for the same seed: of each command its share, in it of each step and kind alike."""
    choice = random.Random(seed)
    total = sum(WEIGHTS[name] for name in made)
    found: list[Injection] = []
    for scenario, calls in made.items():
        strata = defaultdict(list)
        for process, index, name in calls:
            call = _BY_NAME[name]
            who = "command" if process == 0 else "child"
            for kind, number, moment, delay_s in _of_call(call):
                fault = [kind, number, [process, index], moment, delay_s]
                strata[f"{call.step} in its {who}", _kind(kind, number, moment)].append(fault)
        wanted = max(1, round(count * WEIGHTS[scenario] / total))
        for faults in strata.values():
            choice.shuffle(faults)
        keys = [*strata]
        choice.shuffle(keys)
        mine: list[Injection] = []
        while keys and len(mine) < wanted:
            for key in [*keys]:
                row, kind = key
                # A few through a Python of their own: a start of netlab that no fork can stand for.
                started = choice.random() < 0.05
                mine.append(
                    Injection(
                        scenario, row, kind, {"scenario": scenario, "fault": strata[key].pop(), "started": started}
                    )
                )
                if not strata[key]:
                    keys.remove(key)
        found += mine[:wanted]
    return found
