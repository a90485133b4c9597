"""The keys of an experiment's document: the one description that is checked with and the JSON Schema is made from.

A document stands in a file of its own, or under `experiments` of a topology. Its verbs come from `stimuli/` and
`conditions/`, each with the shape of its arguments. Reading is `topology/shapes.py`'s. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any, NamedTuple, cast

from yaml.nodes import MappingNode, Node, ScalarNode

from netlab import fixes
from netlab.capability import CAPABILITIES
from netlab.conditions import conditions
from netlab.experiment import (
    FIRST,
    OTHERWISE,
    PAYLOAD_BYTES,
    PLAIN,
    TIMEOUT_S,
    TRIALS,
    WITHIN_S,
    Action,
    Expectation,
    Experiment,
    Step,
)
from netlab.experiments.words import BYTES, HOST, LINK, NETNS
from netlab.judge import Outcome
from netlab.model import Topology
from netlab.stimuli import stimuli
from netlab.topology import words
from netlab.topology.document import UNTAGGED, Item, Reader, join, kind_of, suggest
from netlab.topology.shapes import (
    USES_VARIABLE,
    Choice,
    Fields,
    Integer,
    JsonSchema,
    Key,
    ListOf,
    MapOf,
    Seconds,
    Shape,
    Text,
)

OUTCOMES = tuple(outcome.value for outcome in Outcome if outcome is not Outcome.INCONCLUSIVE)


def _vocabulary(kind: str) -> dict[str, Fields]:
    verbs: Mapping[str, Any] = stimuli() if kind == "a stimulus" else conditions()
    return {name: verb.ARGUMENTS for name, verb in verbs.items()}


class Verb(NamedTuple):
    """A mapping with one verb and its arguments, or the verb alone: `connect`, `send: {from: server, bytes: 1}`.

    beside are the keys that may stand beside the verb; where one of `without` stands there, the verb may be left out.
    The value is dict[str, Item]: `verb` with (name, arguments), and the keys beside it.
    """

    what: str
    definition: str
    beside: Mapping[str, Key] = {}
    without: str = ""

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        if isinstance(node, ScalarNode):
            scalar = reader.text(node, path)
            if scalar is None:
                return None
            empty = ScalarNode(UNTAGGED, "", node.start_mark, node.end_mark)
            return self._found(reader, node, path, [(scalar[0], node, empty)], {})
        if not isinstance(node, MappingNode):
            reader.problem(node, path, f"expected {self.what}, found {kind_of(node)}")
            return None
        fields: dict[str, Item] = {}
        verbs: list[tuple[str, Node, Node]] = []
        broken = False
        for key, value in reader.pairs(node, path):
            if key.value in self.beside:
                item = self.beside[key.value].shape.read(reader, value, join(path, key.value))
                if item is not None:
                    fields[key.value] = item
                broken = broken or item is None or item.broken
            else:
                verbs.append((key.value, key, value))
        found = self._found(reader, node, path, verbs, fields)
        return None if found is None or broken else found

    def _found(
        self, reader: Reader, node: Node, path: str, verbs: list[tuple[str, Node, Node]], fields: dict[str, Item]
    ) -> Item | None:
        known = _vocabulary(self.what)
        if not verbs and self.without in fields:
            return Item(fields, node, path)
        if len(verbs) != 1:
            found = " and ".join(name for name, _, _ in verbs) or "none"
            reader.problem(node, path, f"expected {self.what}, found {found}", "a step has one; give each its own")
            return None
        name, place, value = verbs[0]
        if name not in known:
            reader.problem(place, path, f"{name!r} is not {self.what}", suggest(name, (*known, *self.beside)))
            return None
        arguments = known[name].read(reader, value, join(path, name))
        if arguments is None or arguments.broken:
            return None
        fields["verb"] = Item((name, arguments), node, path)
        return Item(fields, node, path)

    def parts(self) -> dict[str, object]:
        """The shapes of the keys that may stand there, for `--set`."""
        return {**{name: key.shape for name, key in self.beside.items()}, **_vocabulary(self.what)}

    def schema(self) -> JsonSchema:
        return {"$ref": f"#/definitions/{self.definition}"}

    def body(self) -> JsonSchema:
        """What stands under definitions."""
        beside = {name: {"description": key.doc, **key.shape.schema()} for name, key in self.beside.items()}
        verbs: Mapping[str, Any] = stimuli() if self.what == "a stimulus" else conditions()
        alone = [name for name, verb in verbs.items() if not verb.ARGUMENTS.required]
        each: list[JsonSchema] = [
            {
                "type": "object",
                "properties": {name: {"description": verb.DOC, **verb.ARGUMENTS.schema()}, **beside},
                "required": [name],
                "additionalProperties": False,
            }
            for name, verb in verbs.items()
        ]
        if self.without:
            each.append(
                {
                    "type": "object",
                    "properties": beside,
                    "required": [self.without],
                    "additionalProperties": False,
                }
            )
        return {"anyOf": [{"enum": alone}, USES_VARIABLE, *each]}


_UNLESS = ListOf(Text("a fix's name"), 1, single=True)
CONDITION = Verb("a condition", "condition", {"unless": Key(_UNLESS, "fixes with which it is not looked for")})
STEP = Verb(
    "a stimulus",
    "step",
    {
        "observe": Key(ListOf(CONDITION, 1, single=True), "what must then be observed"),
        "unless": Key(_UNLESS, "fixes with which the step is left out"),
        "within_s": Key(Seconds(), f"how long to wait for it (default {WITHIN_S:g})"),
    },
    without="observe",
)

_OUTCOME = Choice("an outcome", OUTCOMES)
_CAPABILITY = Choice("a capability", tuple(CAPABILITIES))


_BY_CAPABILITY = Fields(
    {
        **{name: Key(_OUTCOME, f"where {meaning}") for name, meaning in CAPABILITIES.items()},
        OTHERWISE: Key(_OUTCOME, "where none of the others holds", required=True),
    }
)


class _Expected(NamedTuple):
    """An outcome, or a mapping of kernel capabilities to outcomes with `otherwise`."""

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        shape: Shape = _BY_CAPABILITY if isinstance(node, MappingNode) else _OUTCOME
        return shape.read(reader, node, path)

    def schema(self) -> JsonSchema:
        return {"anyOf": [_OUTCOME.schema(), _BY_CAPABILITY.schema()]}


EXPERIMENT = Fields(
    {
        "name": Key(Text("an experiment's name", words.experiment_name, words.LABEL), "its name (default: the file's)"),
        "claim": Key(Text("text", words.prose), "what it shows, in one sentence", required=True),
        "explanation": Key(Text("text", words.prose), "why the kernel does so, for who reads the report"),
        "topology": Key(Text("a file's name"), "the lab it is played in; left out: the topology that lists it"),
        "set": Key(
            MapOf(Text("a value", numbers=True)), "values of that topology that must be others, as `--set` has them"
        ),
        "vars": Key(
            MapOf(Text("a number, true, false or text", numbers=True), words.variable_name, words.VARIABLE_NAME),
            "variables: ${name} in any value stands for one",
        ),
        "client": Key(NETNS, "the namespace that connects", required=True),
        "service": Key(Text("a service's name"), "the service it connects to", required=True),
        "payload_bytes": Key(BYTES, f"bytes the server sends (default {PAYLOAD_BYTES})"),
        "trials": Key(Integer(1, 10**6), f"how often `netlab run` plays it (default {TRIALS})"),
        "timeout_s": Key(Seconds(), f"after this long a transfer counts as stalled (default {TIMEOUT_S:g})"),
        "needs": Key(ListOf(_CAPABILITY), "capabilities of the kernel without which it is skipped"),
        "steps": Key(ListOf(STEP, 1), "what is done, in the order of time, and what is observed after", required=True),
        "expect": Key(
            MapOf(_Expected(), minimum=1),
            "the outcome of a trial by the fix: plain, a fix's name, or several as a+b",
            required=True,
        ),
    }
)


def experiment(reader: Reader, item: Item, topology: Topology, default_name: str) -> Experiment | None:
    """The document as a value, its names looked up in the topology; problems go to the reader."""
    _check_names(reader, item, topology)
    if "expect" in item:
        _check_fixes(reader, item["expect"], topology)
    if "steps" in item and not item["steps"].broken:
        _check_connections(reader, item["steps"])
        _check_load(reader, item["steps"])
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
                continue
            hint = get_close_matches(fix, (PLAIN, *names), n=1)
            known = f"did you mean {hint[0]!r}?" if hint else f"known: {', '.join((PLAIN, *names))}"
            reader.at(expected, f"there is no fix {fix!r}", known)
        if len(set(parts)) < len(parts):
            reader.at(expected, f"{name!r} has a fix twice", "name each once")
        same = before.setdefault(tuple(sorted(parts)), name)
        if same != name:
            reader.at(expected, f"{name!r} is the same as {same!r}", "keep one of them")


def _check_connections(reader: Reader, steps: Item) -> None:
    """See that each connection is made before a step speaks of it, and once; and the one under study, if any is."""
    made: dict[str, Item] = {}
    for verb, what in (each for step in steps.value for each in _verbs(step)):
        name, arguments = cast("tuple[str, Item]", verb["verb"].value)
        if "connection" not in _vocabulary(what)[name].keys:
            continue
        called = arguments["connection"] if "connection" in arguments else verb["verb"]
        connection = arguments.get("connection", FIRST)
        if name == "connect":
            if connection in made:
                reader.at(
                    called, f"there is a connection {connection!r} already", "connect: {connection: another-name}"
                )
            made.setdefault(connection, called)
        elif connection not in made:
            which = f"connection {connection!r}" if "connection" in arguments else "connection"
            reader.at(called, f"{name}: no step before this one makes the {which}", "put a connect before it")
    if made and FIRST not in made:
        reader.at(next(iter(made.values())), "no step makes the connection under study", "leave the name of one out")


def _check_load(reader: Reader, steps: Item) -> None:
    """See that a load is alone: its server's program is another than a connection's."""
    who = [step["verb"] for step in steps.value if "verb" in step and step["verb"].value[0] in ("connect", "load")]
    if len(who) > 1 and any(verb.value[0] == "load" for verb in who):
        reader.at(who[1], "a load is alone: nobody else may connect", "give each a document of its own")


def _verbs(step: Item) -> Iterator[tuple[Item, str]]:
    """A step's stimulus and its conditions, in order, each with what it is; what has no verb is left out."""
    for verb, what in ((step, STEP.what), *((each, CONDITION.what) for each in step.get("observe", ()))):
        if "verb" in verb:
            yield verb, what


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
        for verb, what in _verbs(step):
            name, arguments = cast("tuple[str, Item]", verb["verb"].value)
            walk(_vocabulary(what)[name], arguments)
