"""The keys of an experiment's document: the one description that is checked with and the JSON Schema is made from.

A document stands in a file of its own, or under `experiments` of a topology. Its verbs come from `stimuli/` and
`conditions/`, each with the shape of its arguments. Reading is `yamlspec/shapes.py`'s; what the names in a document
mean in a topology is `resolve.py`'s. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from yaml.nodes import MappingNode, Node, ScalarNode

from netlab.analysis.result import Outcome
from netlab.capabilities.capability import CAPABILITIES
from netlab.experiments.conditions import conditions
from netlab.experiments.experiment import OTHERWISE, PAYLOAD_BYTES, TIMEOUT_S, TRIALS, WITHIN_S, Way
from netlab.experiments.stimuli import stimuli
from netlab.experiments.words import BYTES, NETNS, PORT
from netlab.topology import words
from netlab.topology.language import with_experiments
from netlab.yamlspec.compose import UNTAGGED
from netlab.yamlspec.document import Item, Reader, join, kind_of, suggest
from netlab.yamlspec.limits import MAX_SET
from netlab.yamlspec.shapes import (
    USES_VARIABLE,
    Boolean,
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


class Verb(Protocol):
    """What a stimulus's file and a condition's have in common."""

    DOC: str
    ARGUMENTS: Fields


class OneVerb(NamedTuple):
    """A mapping with one verb and its arguments, or the verb alone: `connect`, `send: {from: server, bytes: 1}`.

    what names the verb in a message, verbs gives those that there are. beside are the keys that may stand beside the
    verb; where that of `without` does, the verb may be left out. definition names the shape among the JSON Schema's.
    The value is dict[str, Item]: `verb` with (name, arguments), and the keys beside it.
    """

    what: str
    definition: str
    verbs: Callable[[], Mapping[str, Verb]]
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
        if not verbs and any(key.value == self.without for key, _ in node.value if self.without):
            return None if broken else Item(fields, node, path)
        found = self._found(reader, node, path, verbs, fields)
        return None if found is None or broken else found

    def _found(
        self, reader: Reader, node: Node, path: str, verbs: list[tuple[str, Node, Node]], fields: dict[str, Item]
    ) -> Item | None:
        known = self.verbs()
        if len(verbs) != 1:
            found = " and ".join(name for name, _, _ in verbs) or "none"
            reader.problem(node, path, f"expected {self.what}, found {found}", "a step has one; give each its own")
            return None
        name, place, value = verbs[0]
        if name not in known:
            there = (*known, *self.beside)
            hint = suggest(name, there) or f"known: {', '.join(there)}"
            reader.problem(place, path, f"{name!r} is not {self.what}", hint)
            return None
        arguments = known[name].ARGUMENTS.read(reader, value, join(path, name))
        if arguments is None or arguments.broken:
            return None
        fields["verb"] = Item((name, arguments), node, path)
        return Item(fields, node, path)

    def parts(self) -> dict[str, object]:
        """The shapes of the keys that may stand there, for `--set`."""
        beside = {name: key.shape for name, key in self.beside.items()}
        return {**beside, **{name: verb.ARGUMENTS for name, verb in self.verbs().items()}}

    def schema(self) -> JsonSchema:
        return {"$ref": f"#/definitions/{self.definition}"}

    def body(self) -> JsonSchema:
        """What stands under definitions."""
        beside = {name: {"description": key.doc, **key.shape.schema()} for name, key in self.beside.items()}
        alone = [name for name, verb in self.verbs().items() if not verb.ARGUMENTS.required]
        each: list[JsonSchema] = [
            {
                "type": "object",
                "properties": {name: {"description": verb.DOC, **verb.ARGUMENTS.schema()}, **beside},
                "required": [name],
                "additionalProperties": False,
            }
            for name, verb in self.verbs().items()
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
CONDITION = OneVerb(
    "a condition", "condition", conditions, {"unless": Key(_UNLESS, "fixes with which it is not looked for")}
)
STEP = OneVerb(
    "a stimulus",
    "step",
    stimuli,
    {
        "observe": Key(ListOf(CONDITION, 1, single=True), "what must then be observed"),
        "unless": Key(_UNLESS, "fixes with which the step is left out"),
        "within_s": Key(Seconds(), f"how long to wait for it (default {WITHIN_S:g})"),
    },
    without="observe",
)

_IP_VERSION = Integer(4, 6)
SERVICE = Fields(
    {
        "name": Key(Text("a service's name"), "its name", required=True),
        "port": Key(PORT, "one of its own ports (default the first of TCP)"),
        "way": Key(Choice("a way", tuple(Way)), f"by which of its addresses (default {Way.CLUSTER_IP})"),
        "node": Key(NETNS, "of a node port, the node whose address it is (default the nearest to the client)"),
        "ip_version": Key(_IP_VERSION, "4 or 6 (default that of its first cluster IP)"),
        "address": Key(Text("an address", words.address), "which of several it is (default the first)"),
    },
    lambda text: {"name": text},
    "web",
)
_SERVED_BY = Fields(
    {"netns": Key(NETNS, "the namespace", required=True), "port": Key(PORT, "the port", required=True)},
)
SOCKET = Fields(
    {
        "netns": Key(NETNS, "the namespace", required=True),
        "port": Key(PORT, "the port", required=True),
        "ip_version": Key(_IP_VERSION, "4 or 6 (default that of its first address)"),
        "address": Key(Text("an address", words.address), "which of its addresses (default the first)"),
        "served_by": Key(
            _SERVED_BY, "where the server listens, if the lab's own rules translate what is sent there (default there)"
        ),
    }
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
        "explanation": Key(Text("text", words.prose), "why the kernel does so, for the reader of the report"),
        "kernels": Key(Text("text", words.prose), "which kernels do so, in a phrase"),
        "remedy": Key(Text("text", words.prose), "what helps beside the fixes, in production"),
        "see": Key(
            MapOf(Text("an address on the web", words.web_address), words.prose),
            "what to read about it: names and their https:// addresses",
        ),
        "topology": Key(Text("a file's name"), "the lab it is run in; left out: the topology that lists it"),
        "set": Key(
            MapOf(Text("a value", numbers=True), maximum=MAX_SET),
            "values of that topology to change, as with `--set`",
        ),
        "vars": Key(
            MapOf(Text("a number, true, false or text", numbers=True), words.variable_name, words.VARIABLE_NAME),
            "variables: ${name} in any value stands for one",
        ),
        "client": Key(NETNS, "the namespace that connects", required=True),
        "service": Key(SERVICE, "the service it connects to; or else `to`"),
        "to": Key(SOCKET, "the namespace and port it connects to, without any service"),
        "listens": Key(Boolean(), "whether netlab's server listens there, at every endpoint (default true)"),
        "payload_bytes": Key(BYTES, f"bytes the server sends (default {PAYLOAD_BYTES})"),
        "trials": Key(Integer(1, 10**6), f"how often `netlab run` runs it (default {TRIALS})"),
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


class _Listed(NamedTuple):
    """What a topology lists: the name of a document's file, or the document itself, with variables of its own."""

    def read(self, reader: Reader, node: Node, path: str) -> Item | None:
        if not isinstance(node, MappingNode):
            return Text("an experiment's file, or its document").read(reader, node, path)
        before = dict(reader.variables)
        reader.read_variables(node, path)
        item = EXPERIMENT.read(reader, node, path)
        reader.variables = before
        return item

    def parts(self) -> dict[str, object]:
        """The shapes of a document's keys, for `--set`."""
        return {name: key.shape for name, key in EXPERIMENT.keys.items()}

    def schema(self) -> JsonSchema:
        return {"anyOf": [{"type": "string", "description": "the file of an experiment"}, EXPERIMENT.schema()]}


TOPOLOGY = with_experiments(_Listed())
"""The language of topologies, down to the keys of the experiments that they list."""
