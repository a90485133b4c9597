"""Fuzz targets: the documents that people write and hand around, and `--set`: as text with its bytes damaged, and as
YAML in which a value, a key or a list's item is another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml
from fuzzing import Target, damaged
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from places import TOPOLOGIES

from netlab.experiments import catalogue
from netlab.experiments.roles import assign
from netlab.lab import plan
from netlab.model import Topology

FILE, EXPERIMENT_FILE = str(TOPOLOGIES / "fuzzed.yaml"), str(TOPOLOGIES / "experiments" / "fuzzed.yaml")
"""What the documents are called: what they name lies beside the shipped ones."""

TEXTS = {path.name: path.read_text() for path in sorted(TOPOLOGIES.glob("**/*.yaml"))}
EXPERIMENTS = tuple(text for text in TEXTS.values() if "\nsteps:" in text)
LABS = tuple(text for text in TEXTS.values() if "\nnamespaces:" in text)
FLAGSHIP = TEXTS["kube-proxy-reset.yaml"]


def _shown(topology: Topology) -> None:
    steps = plan.up(topology)
    plan.as_text(steps, "fuzzed-")
    plan.as_shell(steps, topology)
    plan.as_json(steps, topology)


def _document(data: bytes, file: str = EXPERIMENT_FILE) -> None:
    for run in catalogue.runs(data.decode(errors="replace"), file):
        assign(run.topology, run.experiment)


def _topology(data: bytes) -> None:
    _shown(catalogue.load(data.decode(errors="replace"), FILE))
    _document(data, FILE)


def _set(data: bytes) -> None:
    path, _, value = data.decode(errors="replace").partition("=")
    _shown(catalogue.load(FLAGSHIP, FILE, ((path, value),)))
    for run in catalogue.runs(FLAGSHIP, FILE, ((path, value),)):
        assign(run.topology, run.experiment)


# --- YAML with another value in it -----------------------------------------------------------------------------------

_TEXTS = (
    *(
        "",
        " ",
        "~",
        "null",
        "true",
        "x",
        "a:b",
        "a:",
        ":b",
        "-",
        ".",
        "..",
        "/",
        "*",
        "<<",
        "${x}",
        "${",
        "$${x}",
        "\0",
    ),
    *(
        "10.0.0.1",
        "10.0.0.0/8",
        "10.0.0.1/33",
        "::",
        "fe80::1",
        "::ffff:1.2.3.4",
        "0.0.0.0/0",
        "default",
        "255.255.255.255",
    ),
    *(
        "default via 10.0.0.1",
        "blackhole 10.0.0.0/8",
        "10mbit",
        "1e9gbit",
        "50%",
        "(a+)+$",
        "(",
        "[a",
        'include "/dev/zero"',
    ),
    *("net.ipv4.ip_forward", "net.ipv4.conf.eth0/7.x", "inet f", "ip nat", "{", "}", "é", "\u2028", "名", "a\nb", "\t"),
    *("9" * 400, "x" * 5000, "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "client", "client:eth0", "web", "lo", "all"),
)
_NUMBERS = (0, 1, -1, 4, 5, 6, 80, 255, 65535, 65536, 2**31, 2**32, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308)
_ODD: tuple[object, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [{}],
    {"a": {}},
    {None: 1},
    {1: 2},
    float("nan"),
    float("inf"),
    [None],
    [1, [2]],
)


def _places(value: object) -> Iterator[tuple[Any, Any]]:
    """Each container in a value, with each of its keys or indexes."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from _places(inner)


def _words(values: Sequence[object]) -> list[object]:
    """Every key and every scalar there."""
    found: dict[object, None] = {}
    for value in values:
        for container, key in _places(value):
            found[str(key)] = None
            if not isinstance(container[key], dict | list):
                found[str(container[key])] = None
    return list(found)


def _edit(draw: Callable[[SearchStrategy[Any]], Any], value: object, other: SearchStrategy[Any]) -> None:
    places = list(_places(value))
    if not places:
        return
    container, key = places[draw(st.integers(0, len(places) - 1))]
    how = draw(st.sampled_from(["replace", "replace", "drop", "double", "move", "rename", "wrap"]))
    if how == "drop":
        del container[key]
    elif how == "double" and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif how == "move":
        place, where = places[draw(st.integers(0, len(places) - 1))]
        container[key] = copy.deepcopy(place[where]) if where in place or isinstance(place, list) else None
    elif how == "rename" and isinstance(container, dict):
        name = draw(other)
        container[name if name.__hash__ else str(name)] = container.pop(key)
    elif how == "wrap":
        container[key] = draw(st.sampled_from([[container[key]], {"a": container[key]}, [container[key]] * 3]))
    else:
        container[key] = draw(other)


def changed(texts: Sequence[str]) -> SearchStrategy[bytes]:
    """Sound documents of YAML with a few values, keys or items changed, moved, left out, doubled."""
    values = [yaml.load(text, Loader=yaml.CSafeLoader) for text in texts]
    other = st.sampled_from([*_words(values), *_TEXTS, *_NUMBERS, *_ODD]) | st.text(max_size=8)

    @st.composite
    def made(draw: Callable[[SearchStrategy[Any]], Any]) -> bytes:
        value = copy.deepcopy(draw(st.sampled_from(values)))
        for _ in range(draw(st.integers(1, 4))):
            _edit(draw, value, other)
        return yaml.safe_dump(value, allow_unicode=True, sort_keys=False).encode(errors="surrogatepass")

    return made()


_SETTINGS = (
    *(b"vars.client_window=1", b"namespaces.client.sysctls.net.ipv4.tcp_rmem=1 2 3", b"links[0].subnet=10.0.0.0/24"),
    *(
        b"links.0.ends[1].mtu=1400",
        b"bridges.cni0.ports[+]={netns: client}",
        b"services.web={port: 80}",
        b"links[+]=[a, b]",
    ),
    *(
        b"experiments[0].steps[0].observe.[+]=x",
        b"experiment.trials=3",
        b"fixes.x.set.vars.y=1",
        b"kube_proxy.nodes[0]=~",
    ),
)


def _set_paths() -> SearchStrategy[bytes]:
    """Paths put together from the file's own words, and values from everything."""
    words = [str(word) for word in _words([yaml.safe_load(FLAGSHIP)]) if len(str(word)) < 40]
    part = st.sampled_from(words) | st.sampled_from(
        ["0", "1", "+", "[0]", "[+]", "[", "]", "", "-1", "[99]", "steps", "set"]
    )
    path = st.lists(part, min_size=1, max_size=7).map(".".join)
    value = st.sampled_from(
        [*words, *_TEXTS, "{a: b}", "[a, b]", "&a [*a]", "{<<: x}", "[" * 70, "!!int 3", "{? [a] : b}"]
    )
    return st.tuples(path, value).map(lambda both: "=".join(both).encode(errors="surrogatepass"))


TARGETS = (
    Target("topology", _topology, changed(LABS) | damaged([text.encode() for text in LABS])),
    Target("experiment", _document, changed(EXPERIMENTS) | damaged([text.encode() for text in EXPERIMENTS])),
    Target("set", _set, _set_paths() | damaged(_SETTINGS)),
)
