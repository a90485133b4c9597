"""Where experiments stand: in a topology, in files that it names, or in a file given on the command line.

Owns the reading of documents and the choice among them. What a document says is `language.py`'s
and `resolve.py`'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from yaml.nodes import MappingNode

from netlab import topology as topologies
from netlab.errors import Problem, TopologyError, UsageError
from netlab.experiments import resolve
from netlab.experiments.experiment import Experiment
from netlab.experiments.language import EXPERIMENT, TOPOLOGY
from netlab.model import Topology
from netlab.topology.files import Named
from netlab.yamlspec.compose import compose, is_experiment
from netlab.yamlspec.document import Item, Reader
from netlab.yamlspec.settings import apply

_RELATIVE = "a path is relative to the file that names it"

_OWN = "experiment."
"""How a `--set` path begins that leads into the experiment's document instead of the topology."""

Settings = tuple[tuple[str, str], ...]


class Run(NamedTuple):
    """An experiment and the lab it is run in: the lab's topology, its text, file and `--set` pairs.

    document is the text of the experiment's own file, empty for one that stands in the topology; own are the `--set`
    pairs that changed what stands there. file is as given, "-" for standard input.
    """

    experiment: Experiment
    topology: Topology
    text: str
    file: str
    settings: Settings
    document: str = ""
    own: Settings = ()


Choice = Callable[[Sequence[Run]], Sequence[Run]]

Outside = Callable[[str], object]
"""Is told the path of each file outside the directory of the one that names it, before it is read."""


def _silent(_path: str) -> None:
    pass


def is_document(text: str, file: str) -> bool:
    """Whether a file's text is an experiment's document, and not a topology; TopologyError where it isn't YAML."""
    return is_experiment(compose(text, file).root)


def parted(settings: Settings) -> tuple[Settings, Settings]:
    """The pairs that lead into a topology, and those that lead into the document of an experiment."""
    own = tuple(pair for pair in settings if pair[0].startswith(_OWN))
    return tuple(pair for pair in settings if pair not in own), own


def runs(
    text: str,
    file: str,
    settings: Settings = (),
    name: str | None = None,
    choice: Choice = list,
    outside: Outside = _silent,
) -> list[Run]:
    """The experiments of a file's text, a topology's or a document's, in order: those of them that are the choice.

    settings may lead into the topology, or with `experiment.` into each document that is chosen. TopologyError, for the
    file that has the problems; UsageError for a document that says nothing of its lab, and what choice raises.
    """
    rest, own = parted(settings)
    if is_document(text, file):
        return list(choice([_from_document(text, file, own, rest, name, None, outside)]))
    listing = _listing(text, file, rest, name)
    lister = _Lister(text, file, rest, name, outside, listing.topology, listing.listed)
    found = [_listed(lister, index, ()) for index in range(len(lister.listed))]
    _check_once(found, file)
    chosen = choice(found)
    if own:
        chosen = [_listed(lister, found.index(run), own) for run in chosen]
        _check_once(chosen, file)
    return list(chosen)


def load(text: str, file: str, settings: Settings = (), name: str | None = None, fixes: Sequence[str] = ()) -> Topology:
    """The lab of a topology, as `topology.load` has it; TopologyError holds the problems of its experiments, too."""
    return _listing(text, file, settings, name, tuple(fixes)).topology


def warnings(text: str, file: str, settings: Settings = (), name: str | None = None) -> tuple[Problem, ...]:
    """What is allowed in a sound topology, and hardly meant."""
    return _listing(text, file, settings, name).warnings


class _Listing(NamedTuple):
    """A topology, and in order what it lists: the files of documents, or experiments that stand there themselves."""

    topology: Topology
    listed: tuple[Experiment | str, ...]
    warnings: tuple[Problem, ...]


@lru_cache(maxsize=2)
def _listing(text: str, file: str, settings: Settings, name: str | None, fixes: tuple[str, ...] = ()) -> _Listing:
    parsed = topologies.parse(text, file, settings, name, fixes, TOPOLOGY)
    listed: list[Experiment | str] = []
    for index, item in enumerate(parsed.root.get("experiments", ())):
        if isinstance(item.value, str):
            listed.append(item.value)
            continue
        if "topology" in item:
            parsed.reader.at(item["topology"], "an experiment in a topology is run there", "leave the key out")
        made = resolve.experiment(parsed.reader, item, parsed.lab, f"experiment-{index + 1}")
        if made is not None:
            listed.append(made)
    return _Listing(parsed.sound(), tuple(listed), tuple(parsed.reader.warnings))


def choose(found: Sequence[Run], name: str | None, source: str) -> Run:
    """The experiment of that name, or the first; UsageError, naming the source, where there is none."""
    if not found:
        raise UsageError(f"{source} has no experiment", "name an experiment's file, or add `experiments:` to it")
    if name is None:
        return found[0]
    for run in found:
        if run.experiment.name == name:
            return run
    from netlab.yamlspec.document import suggest

    names = [run.experiment.name for run in found]
    raise UsageError(f"there is no experiment {name!r}", suggest(name, names) or f"there are: {', '.join(names)}")


class _Lister(NamedTuple):
    """The topology that lists documents: its text and file, with which settings and lab's name, and what it means.

    listed are its experiments, in order, or the names of the files that hold them, relative to its own.
    """

    text: str
    file: str
    settings: Settings
    name: str | None
    outside: Outside
    topology: Topology
    listed: tuple[Experiment | str, ...]


def _listed(lister: _Lister, index: int, own: Settings) -> Run:
    """One of the experiments that a topology lists: a file's name, or the document itself."""
    text, file, settings, name, outside, topology, listed = lister
    each = listed[index]

    def place(message: str, *inner: str) -> Problem:
        return topologies.problem(text, file, settings, (), ("experiments", index, *inner), 0, 0, message)

    if isinstance(each, str):
        try:
            document, path = _read(Named(file, each), outside, is_document, "no experiment's document")
        except UsageError as error:
            raise TopologyError(file, [place(error.message)._replace(hint=error.hint or "")]) from None
        return _from_document(document, path, own, settings, name, lister, outside)
    changes = tuple((f"experiments[{index}].{path.removeprefix(_OWN)}", value) for path, value in own)
    needed = (*each.settings, *settings, *changes)
    try:
        inline, changed, _ = _listing(text, file, needed, name) if needed else (topology, listed, ())
    except TopologyError as error:
        raise _of_set(error, file, {key: place("", "set", key) for key, _ in each.settings}) from None
    experiment = changed[index]
    assert isinstance(experiment, Experiment)
    return Run(experiment, inline, text, file, (*each.settings, *settings), own=own)


def _read(named: Named, outside: Outside, is_one: Callable[[str, str], bool], otherwise: str) -> tuple[str, str]:
    """The text and the path of a document that another one names; UsageError where it can't be read.

    Of a file that lies elsewhere nothing is quoted, as messages do, before it is seen to be one: it may be anything.
    """
    path = named.path
    if named.outside:
        outside(path)
    try:
        text = named.read_text()
    except UsageError as error:
        raise UsageError(error.message, _RELATIVE) from None
    if named.outside:
        try:
            known = is_one(text, path)
        except TopologyError:
            known = False
        if not known:
            raise UsageError(f"{path} is {otherwise}", f"`netlab lint {path}` says what it finds there")
    return text, path


def _is_topology(text: str, file: str) -> bool:
    root = compose(text, file).root
    return isinstance(root, MappingNode) and any(key.value == "namespaces" for key, _ in root.value)


def _of_set(error: TopologyError, file: str, places: Mapping[str, Problem]) -> TopologyError:
    """The problems that come from a document's own `set`, told at their places there; the same error if none does."""
    found = []
    for problem in error.problems:
        key = next(
            (key for key in places if problem.path == key or problem.path.startswith((f"{key}.", f"{key}["))), ""
        )
        if problem.line == 0 and key:
            found.append(places[key]._replace(message=problem.message, hint=problem.hint))
    return TopologyError(file, found) if found else error


def _from_document(
    text: str,
    file: str,
    own: Settings,
    settings: Settings,
    name: str | None,
    lister: _Lister | None,
    outside: Outside,
) -> Run:
    reader = Reader(file)
    root = compose(text, file).root
    for path, value in own:
        root = apply(reader, root, EXPERIMENT, path.removeprefix(_OWN), value)
    reader.read_variables(root)
    item = EXPERIMENT.read(reader, root, "")
    if item is None:
        raise _error(reader, file)
    needed: Settings = tuple((path, value.value) for path, value in item.get("set", {}).items())
    try:
        lab_text, lab_file, topology = _lab(reader, item, file, (*needed, *settings), name, lister, outside)
    except TopologyError as error:
        places = {
            key: Problem(value.line, value.node.start_mark.column + 1, value.path, "")
            for key, value in item.get("set", {}).items()
        }
        raise _of_set(error, file, places) from None
    experiment = resolve.experiment(reader, item, topology, topologies.default_name(file))
    if reader.problems or experiment is None:
        raise _error(reader, file)
    return Run(experiment, topology, lab_text, lab_file, (*needed, *settings), text, own)


def _error(reader: Reader, file: str) -> TopologyError:
    """What is wrong with a document; the paths of what `--set` put there are as one writes them."""
    return TopologyError(
        file, [each if each.line else each._replace(path=f"{_OWN}{each.path}") for each in reader.problems]
    )


def _lab(
    reader: Reader,
    item: Item,
    file: str,
    settings: Settings,
    name: str | None,
    lister: _Lister | None,
    outside: Outside,
) -> tuple[str, str, Topology]:
    """The text, file and meaning of the topology that a document is run in."""
    if "topology" in item:
        named = Named(file, item.get("topology"))
        if lister is None or os.path.realpath(named.path) != os.path.realpath(lister.file):
            try:
                text, path = _read(named, outside, lambda *one: _is_topology(*one) or is_document(*one), "no topology")
            except UsageError as error:
                reader.at(item["topology"], error.message, error.hint or "")
                raise _error(reader, file) from None
            if is_document(text, path):
                reader.at(item["topology"], f"{path} is an experiment, not a topology", "name the lab's file")
                raise _error(reader, file)
            return text, path, topologies.load(text, path, settings, name)
    if lister is None and reader.problems:
        raise _error(reader, file)
    if lister is None:
        raise UsageError(f"{file} doesn't say which lab it is run in", "add `topology: FILE`, or list it in a topology")
    as_listed = settings == lister.settings
    topology = lister.topology if as_listed else topologies.load(lister.text, lister.file, settings, name)
    return lister.text, lister.file, topology


def _check_once(found: Sequence[Run], file: str) -> None:
    names = [run.experiment.name for run in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{file} has two experiments called {twice!r}", "give one of them another name")
