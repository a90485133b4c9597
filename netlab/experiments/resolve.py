"""A document that was read to an Experiment: names looked up in the topology, steps held against each other. Pure.

What the keys are is `language.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from yaml.nodes import MappingNode

from netlab.analysis.result import Outcome
from netlab.experiments import roles
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
    Target,
    ToService,
    ToSocket,
    Way,
)
from netlab.experiments.language import CONDITION, EXPERIMENT, SERVICE, SOCKET, STEP
from netlab.experiments.words import HOST, LINK, NETNS, TRACKER
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
    _check_target(reader, item)
    if not all(key in item for key in EXPERIMENT.required) or item.broken or len(_targets(item)) != 1:
        return None
    made = Experiment(
        name=item.get("name", default_name),
        claim=" ".join(item.get("claim").split()),
        steps=tuple(_step(step) for step in item.get("steps")),
        client=item.get("client"),
        target=_target(item),
        payload_bytes=item.get("payload_bytes", PAYLOAD_BYTES),
        trials=item.get("trials", TRIALS),
        timeout_s=item.get("timeout_s", TIMEOUT_S),
        needs=tuple(each.value for each in item.get("needs", ())),
        expect=tuple((name, tuple(_expected(found))) for name, found in item.get("expect").items()),
        explanation=item.get("explanation", "").strip(),
        kernels=item.get("kernels", "").strip(),
        remedy=" ".join(item.get("remedy", "").split()),
        see=tuple((name, address.value) for name, address in item.get("see", {}).items()),
        topology=item.get("topology"),
        settings=tuple((path, value.value) for path, value in item.get("set", {}).items()),
        listens=item.get("listens", True),
    )
    if not reader.problems:
        _check_roles(reader, item, topology, made)
    return made


def _targets(item: Item) -> list[str]:
    """The keys that say where the client connects: one of them is to be there."""
    return [key for key in ("service", "to") if key in item]


def _written(reader: Reader, node: MappingNode, path: str) -> set[str]:
    """The keys that a document has, whether what they say could be read or not."""
    return {key.value for key, _ in reader.pairs(node, path)}


def _check_target(reader: Reader, item: Item) -> None:
    """See that a document says once where the client connects, and nothing that such a target has not."""
    if "service" in item and "to" in item:
        reader.at(item["to"], "the client connects to a service already", "keep one of service and to")
    if isinstance(item.node, MappingNode) and not {"service", "to"} & _written(reader, item.node, item.path):
        hint = "service: NAME, or to: {netns: NAME, port: NUMBER}"
        reader.at(item, "it doesn't say where the client connects", hint)
    for target in (item[key] for key in _targets(item)):
        if target.get("ip_version") == 5:
            reader.at(target["ip_version"], "there is no IPv5", "4 or 6")
    if "service" in item and "node" in item["service"] and item["service"].get("way") != Way.NODE_PORT:
        reader.at(item["service"]["node"], "`node` goes with node ports only", f"way: {Way.NODE_PORT}")


def _target(item: Item) -> Target:
    if "service" in item:
        service = item["service"]
        return ToService(
            service=service.get("name"),
            port=service.get("port"),
            way=Way(service.get("way", Way.CLUSTER_IP)),
            node=service.get("node"),
            ip_version=service.get("ip_version"),
            address=service.get("address"),
        )
    socket = item["to"]
    served_by = socket.get("served_by")
    return ToSocket(
        netns=socket.get("netns"),
        port=socket.get("port"),
        ip_version=socket.get("ip_version"),
        address=socket.get("address"),
        served_by=None if served_by is None else (served_by["netns"].value, served_by["port"].value),
    )


def _check_roles(reader: Reader, item: Item, topology: Topology, made: Experiment) -> None:
    """See that the topology has who is needed, and that what is expected can be seen there."""
    try:
        assigned = roles.assign(topology, made)
    except roles.RolesError as error:
        reader.at(item[error.key], error.message, error.hint or "")
        return
    if made.has("load") and len(assigned.servers) != 1:
        there = f"are {len(assigned.servers)} endpoints" if assigned.servers else "is none"
        reader.at(item[_targets(item)[0]], f"a load has one server, and there {there}", "name a service with one")
    rules = any(roles.tracks(topology, name) for name in assigned.netns)
    if not rules:
        _check_expected(reader, item["expect"])
    made_by_hand = made.namespaces() if made.has("program") or made.has("conntrack-helper") else ()
    for step in item.get("steps"):
        for _, verb, takes in _verbs(step):
            for key, value in verb.value[1].value.items():
                tracking = roles.tracks(topology, value.value) if takes.keys[key].shape is TRACKER else True
                if not tracking and value.value not in made_by_hand:
                    reader.at(value, f"{value.value} tracks no connections: none of its rules asks conntrack")


def _check_expected(reader: Reader, expect: Item) -> None:
    """See that nobody expects what NAT alone does where nothing translates."""
    for expected in expect.value.values():
        outcomes = [expected] if isinstance(expected.value, str) else list(expected.value.values())
        for outcome in (each for each in outcomes if each.value == Outcome.RESET):
            reader.at(
                outcome, "no namespace on the way translates, so no reply can come untranslated", "another outcome"
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
        reader.at(who[1], "a load must be the only step that connects", "give each a document of its own")


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
            if shape is NETNS or shape is TRACKER or shape is LINK:
                look_up(value, shape)
            elif isinstance(shape, Fields):
                walk(shape, value)
            elif shape is HOST:
                look_up_host(value)

    if "client" in item:
        look_up(item["client"], NETNS)
    if "service" in item:
        names = [service.name for service in topology.services]
        name = item["service"].get("name")
        if name is not None and name not in names:
            reader.at(item["service"]["name"], f"no service is called {name!r}", suggest(name, names))
        walk(SERVICE, item["service"])
    if "to" in item:
        walk(SOCKET, item["to"])
    for step in item.get("steps", ()):
        for _, verb, takes in _verbs(step):
            walk(takes, verb.value[1])
