"""The topology that a lab is, kept in a form that is read in a tenth of the time that its text takes.

It is a pickle that can make nothing but a topology's own values, and counts only while it is of the very text, settings
and fixes that are written down of the lab. Whoever finds none reads the text.
"""

from __future__ import annotations

import io
import ipaddress
import pickle
from enum import Enum
from typing import Any

from netlab import model
from netlab.errors import Problem
from netlab.lab import sealed
from netlab.lab.directory import LabDirectory
from netlab.lab.spec import Spec
from netlab.lab.state import LabState
from netlab.links import KINDS


def keep(directory: LabDirectory, spec: Spec) -> None:
    """Write down what a lab is that is just this."""
    made = sealed.made_of(spec.text, spec.file, spec.settings, spec.fixes)
    data = io.BytesIO()
    pickler = pickle.Pickler(data, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {each: _by_value for each in _CLASSES.values() if issubclass(each, Enum)}
    pickler.dump((made, spec.topology, spec.warnings))
    sealed.keep(directory.kept_spec, data.getvalue())


def _by_value(member: Enum) -> tuple[type[Enum], tuple[object]]:
    return type(member), (member.value,)


def kept(directory: LabDirectory, state: LabState, text: str) -> Spec | None:
    """What the lab was last asked to be, of which text is written down; None where that has to be read."""
    data = sealed.kept(directory.kept_spec)
    if data is None:
        return None
    try:
        made, topology, warnings = _Values(io.BytesIO(data)).load()
    except pickle.UnpicklingError:
        return None
    if made != sealed.made_of(text, state.file, state.settings, state.fixes) or topology.name != state.lab:
        return None
    return Spec(topology, text, state.file, state.settings, state.fixes, warnings=warnings)


class _Values(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _CLASSES.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"a topology has no {module}.{name}")
        return found


_CLASSES: dict[tuple[str, str], type] = {
    (each.__module__, each.__qualname__): each
    for each in (
        *(value for value in vars(model).values() if isinstance(value, type) and value.__module__ == model.__name__),
        *(kind.value for kind in KINDS),
        *(getattr(ipaddress, f"IPv{v}{what}") for v in (4, 6) for what in ("Address", "Interface", "Network")),
        Problem,
    )
}
