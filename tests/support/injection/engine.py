"""One sandbox at work: told what to inject, it answers with what came of it. Talks JSON, a line a message."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any, NoReturn

from injection import commands, judge, sandbox
from injection.commands import Command, Fault, How, Place
from injection.judge import Complaint
from injection.machine import Machine
from injection.scenarios import SCENARIOS, Scenario
from injection.situations import SITUATIONS


def serve(channel: socket.socket, privilege: str, *, ordinary: bool, foreign: bool) -> NoReturn:
    """Enter a sandbox and answer until the channel ends."""
    commands.import_all()
    sandbox.enter(ordinary=ordinary)
    machine = Machine(privilege, foreign=foreign)
    scenarios: dict[str, Scenario] = {}
    file = channel.makefile("rw")
    for line in file:
        asked = json.loads(line)
        name = asked["scenario"]
        scenario = scenarios.setdefault(name, SCENARIOS[name](machine)) if name not in scenarios else scenarios[name]
        if "situation" in asked:
            answer = _happen(scenario, asked["situation"])
        else:
            answer = _record(scenario) if "fault" not in asked else _inject(scenario, asked)
        file.write(json.dumps(answer) + "\n")
        file.flush()
    os._exit(0)


def _record(scenario: Scenario) -> dict[str, Any]:
    """All calls that the command makes where nothing is injected."""
    command = scenario.machine.commands.run(*scenario.begin(), how=How(record=True))
    complaints = [*judge.ended(command, any_code=scenario.any_code), *scenario.judge(command)]
    if command.code or complaints:
        raise AssertionError(f"{scenario.name} without a fault: exit {command.code}: {command.stderr}{complaints}")
    return {"made": [[*made.place, made.call.name] for made in command.made], "took_s": command.took_s}


def _inject(scenario: Scenario, asked: dict[str, Any]) -> dict[str, Any]:
    begun = time.monotonic()
    kind, number, place, moment, delay_s = asked["fault"]
    fault = Fault(kind, number, Place(*place), moment, delay_s)
    how = How(fault, started=asked.get("started", False))
    command = scenario.machine.commands.run(*scenario.begin(), how=how)
    injected = command.injected
    complaints = [*judge.ended(command, any_code=scenario.any_code, deaf=command.deaf), *scenario.judge(command)]
    return _answer(command, injected and injected.call.name, complaints, begun)


def _happen(scenario: Scenario, name: str) -> dict[str, Any]:
    begun = time.monotonic()
    command, complaints = SITUATIONS[name].happen(scenario.machine, scenario)
    return _answer(command, "situation", complaints, begun)


def _answer(command: Command, call: str | None, complaints: list[Complaint], begun: float) -> dict[str, Any]:
    return {
        "call": call,
        "outcome": judge.outcome(command),
        "code": command.code,
        "stderr": command.stderr[-500:],
        "took_s": command.took_s,
        "all_s": time.monotonic() - begun,
        "complaints": complaints,
    }
