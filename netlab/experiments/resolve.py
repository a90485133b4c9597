"""A document that was read to an Experiment: names looked up in the topology, steps held against each other. Pure.

What the keys are is `language.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from netlab.analysis.result import Outcome
from netlab.experiments.experiment import (
    FIRST,
    OTHERWISE,
    PAYLOAD_BYTES,
    TIMEOUT_S,
    TRIALS,
    WITHIN_S,
    Action,
    Expectation,
    Experiment,
    Step,
)
from netlab.experiments.language import CONDITION, EXPERIMENT, STEP
from netlab.experiments.words import HOST, LINK, NETNS
from netlab.kubeproxy import fixes
from netlab.kubeproxy.fixes import PLAIN
from netlab.model import Topology
from netlab.yamlspec.document import Item, Reader, suggest
from netlab.yamlspec.shapes import Fields, Shape


def experiment(reader: Reader, item: Item, topology: Topology, default_name: str) -> Experiment | None:
    """The document as a value, its names looked up in the topology; problems go to the reader."""
    _check_names(reader, item, topology)
    if "expect" in item:
        _check_fixes(reader, item["expect"], topology)
    if "steps" in item and not item["steps"].broken:
        _check_connections(reader, item["steps"])
        _check_load(reader, item["steps"])
        _check_payload(reader, item["steps"], item.get("payload_bytes", PAYLOAD_BYTES))
    _check_unless(reader, item, topology)
    if not all(key in item for key in EXPERIMENT.required) or item.broken:
        return None
    return Experiment(
        name=item.get("name", default_name),
        claim=" ".join(item.get("claim").split()),
        steps=tuple(_step(step) for step in item.get("steps")),
        client=item.get("client"),
        service=item.get("service"),
        payload_bytes=item.get("payload_bytes", PAYLOAD_BYTES),
        trials=item.get("trials", TRIALS),
        timeout_s=item.get("timeout_s", TIMEOUT_S),
        needs=tuple(each.value for each in item.get("needs", ())),
        expect=tuple((name, tuple(_expected(found))) for name, found in item.get("expect").items()),
        explanation=item.get("explanation", "").strip(),
        topology=item.get("topology"),
        settings=tuple((path, value.value) for path, value in item.get("set", {}).items()),
    )


def _expected(found: Item) -> Iterator[Expectation]:
    if isinstance(found.value, str):
        yield Expectation(Outcome(found.value))
        return
    for capability, outcome in found.value.items():
        if capability != OTHERWISE:
            yield Expectation(Outcome(outcome.value), capability)
    if OTHERWISE in found.value:
        yield Expectation(Outcome(found.value[OTHERWISE].value))


def _step(item: Item) -> Step:
    stimulus = _action(item["verb"]) if "verb" in item else None
    observe = tuple(_action(each["verb"], _unless(each)) for each in item.get("observe", ()))
    return Step(stimulus, observe, item.get("within_s", WITHIN_S), _unless(item))


def _action(verb: Item, unless: tuple[str, ...] = ()) -> Action:
    name, arguments = verb.value
    return Action(name, _plain(arguments), unless)


def _unless(item: Item) -> tuple[str, ...]:
    return tuple(each.value for each in item.get("unless", ()))


def _plain(item: Item) -> Any:
    if isinstance(item.value, dict):
        return {key: _plain(value) for key, value in item.value.items()}
    if isinstance(item.value, list):
        return tuple(_plain(each) for each in item.value)
    return item.value


def _check_unless(reader: Reader, item: Item, topology: Topology) -> None:
    """Look every fix up with which a step or a condition is left out."""
    names = (*fixes.FIXES, *(own.name for own in topology.fixes))
    for step in item.get("steps", ()):
        for fix in (fix for each in (step, *step.get("observe", ())) for fix in each.get("unless", ())):
            if fix.value not in names:
                reader.at(fix, f"there is no fix {fix.value!r}", suggest(fix.value, names))


def _check_fixes(reader: Reader, expect: Item, topology: Topology) -> None:
    """Look every fix up under `expect`, where each may stand once, alone or in one combination."""
    names = (*fixes.FIXES, *(own.name for own in topology.fixes))
    before: dict[tuple[str, ...], str] = {}
    for name, expected in expect.value.items():
        parts = name.split("+")
        for fix in (part for part in parts if part not in names and name != PLAIN):
            if fix == PLAIN:
                reader.at(expected, f"{name!r} has plain among fixes", "plain is without any")
            else:
                reader.at(expected, f"there is no fix {fix!r}", suggest(fix, (PLAIN, *names)))
        if len(set(parts)) < len(parts):
            reader.at(expected, f"{name!r} has a fix twice", "name each once")
        same = before.setdefault(tuple(sorted(parts)), name)
        if same != name:
            reader.at(expected, f"{name!r} is the same as {same!r}", "keep one of them")


def _check_connections(reader: Reader, steps: Item) -> None:
    """See that each connection is made before a step speaks of it, and once; and the one under study, if any is."""
    made: dict[str, Item] = {}
    for name, verb, takes in (each for step in steps.value for each in _verbs(step)):
        if "connection" not in takes.keys:
            continue
        named: Item | None = verb.value[1].value.get("connection")
        connection, called = (FIRST, verb) if named is None else (named.value, named)
        if name == "connect":
            if connection in made:
                reader.at(
                    called, f"there is a connection {connection!r} already", "connect: {connection: another-name}"
                )
            made.setdefault(connection, called)
        elif connection not in made:
            which = "connection" if named is None else f"connection {connection!r}"
            reader.at(called, f"{name}: no step before this one makes the {which}", "put a connect before it")
    if made and FIRST not in made:
        reader.at(next(iter(made.values())), "no step makes the connection under study", "leave the name of one out")


def _check_load(reader: Reader, steps: Item) -> None:
    """See that a load is alone: its server's program is another than a connection's."""
    who = [step["verb"] for step in steps.value if "verb" in step and step["verb"].value[0] in ("connect", "load")]
    if len(who) > 1 and any(verb.value[0] == "load" for verb in who):
        reader.at(who[1], "a load is alone: nobody else may connect", "give each a document of its own")


def _check_payload(reader: Reader, steps: Item, payload_bytes: int) -> None:
    """See that no end is to send, and the client to get, more than the payload has."""
    sent: dict[tuple[str, str], int] = {}
    for name, verb, _ in (each for step in steps.value for each in _verbs(step)):
        arguments = verb.value[1]
        if name == "send":
            end = arguments.get("from")
            which = (end, arguments.get("connection", FIRST))
            sent[which] = sent.get(which, 0) + arguments.get("bytes")
            wanted, what = sent[which], f"the {end} is to send {sent[which]:,} bytes in all"
        elif name == "received" and arguments.get("by") == "client":
            wanted, what = arguments.get("bytes"), f"the client is to get {arguments.get('bytes'):,} bytes"
        else:
            continue
        if wanted > payload_bytes:
            hint = f"payload_bytes: {wanted}, or more"
            reader.at(arguments["bytes"], f"{what}, and the payload has {payload_bytes:,}", hint)


def _verbs(step: Item) -> Iterator[tuple[str, Item, Fields]]:
    """The names of a step's stimulus and its conditions, in order, each as it was read and with what it takes."""
    for each, shape in ((step, STEP), *((condition, CONDITION) for condition in step.get("observe", ()))):
        if "verb" in each:
            name = each.get("verb")[0]
            yield name, each["verb"], shape.verbs()[name].ARGUMENTS


def _check_names(reader: Reader, item: Item, topology: Topology) -> None:
    """Look every namespace, interface and service up that the document names."""
    known = [netns.name for netns in topology.namespaces]
    links = [f"{end.netns}:{end.ifname}" for end in topology.interfaces()]
    hosts = [*known, *(service.name for service in topology.services)]

    def look_up_host(name: Item) -> None:
        try:
            ip_address(name.value)
        except ValueError:
            if name.value not in hosts:
                hint = suggest(name.value, hosts)
                reader.at(name, f"{name.value!r} is no address, and no namespace or service is called so", hint)

    def look_up(name: Item, shape: Shape) -> None:
        netns = str(name.value).partition(":")[0] if shape is LINK else name.value
        if netns not in known:
            reader.at(name, f"no namespace is called {netns!r}", suggest(netns, known))
        elif shape is LINK and name.value not in links:
            own = [link for link in links if link.startswith(f"{netns}:")]
            reader.at(name, f"no interface is called {name.value!r}", suggest(name.value, own))

    def walk(fields: Fields, values: Item) -> None:
        for key, value in values.value.items():
            shape = fields.keys[key].shape
            if shape is NETNS or shape is LINK:
                look_up(value, shape)
            elif shape is HOST:
                look_up_host(value)

    if "client" in item:
        look_up(item["client"], NETNS)
    if "service" in item:
        names = [service.name for service in topology.services]
        if item["service"].value not in names:
            name = item["service"].value
            reader.at(item["service"], f"no service is called {name!r}", suggest(name, names))
    for step in item.get("steps", ()):
        for _, verb, takes in _verbs(step):
            walk(takes, verb.value[1])
