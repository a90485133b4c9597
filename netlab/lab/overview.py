"""What `netlab status` shows: the labs that are written down, or one lab as it stands and where it has drifted.

A lab's interfaces and addresses are the kernel's, its Services the topology's.
"""

from __future__ import annotations

from collections.abc import Sequence
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any

from netlab import escapes
from netlab.lab import programs
from netlab.lab.directory import DamagedError, LabDirectory
from netlab.lab.netns import Namespaces
from netlab.lab.reading import Reading
from netlab.lab.rest import seen_at_rest
from netlab.lab.rundir import labs, run_directory
from netlab.lab.standing import is_standing, open_lab
from netlab.lab.state import LabState
from netlab.layout import aligned
from netlab.linux.rtdump import Told


def overview(output: str, width: int | None = None) -> str:
    """All labs of this user, as a table, of that width where it can be, or JSON."""
    root = run_directory()
    found = [_row(LabDirectory(root, name)) for name in labs(root)]
    if output == "json":
        return escapes.as_json({"labs": found})
    if not found:
        return "no lab is up\n"
    head = ("LAB", "STATE", "MODE", "NAMESPACES", "FIXES", "TOPOLOGY")
    table = aligned([head, *(_cells(row) for row in found)], width)
    notes = [f"{row['why']}; `netlab down {row['lab']}` removes what is left\n" for row in found if row["why"]]
    return "".join((table, "\n" if notes else "", *notes))


def _row(directory: LabDirectory) -> dict[str, Any]:
    none = {"mode": "", "namespaces": 0, "fixes": [], "topology": None, "why": ""}
    try:
        state = directory.read()
    except DamagedError as error:
        return {"lab": directory.lab, "is": "damaged", **none, "why": error.message}
    if state is None:
        return {"lab": directory.lab, "is": "never begun", **none}
    return {
        "lab": state.lab,
        "is": _condition(state),
        "mode": "rootless" if state.rootless else "root",
        "namespaces": len(state.namespaces),
        "fixes": list(state.fixes),
        "topology": state.file,
        "why": "",
    }


def _condition(state: LabState) -> str:
    return "up" if is_standing(state) else "incomplete" if not state.complete else "dead"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    fixes = ",".join(row["fixes"]) or "-"
    return (row["lab"], row["is"], row["mode"], str(row["namespaces"]), fixes, row["topology"] or "-")


def detail(directory: LabDirectory, state: LabState, output: str, width: int | None = None) -> str:
    """One lab, as text, its tables of that width where they can be, or JSON. LabError where it isn't whole.

    drift is the steps that `netlab up` would carry out.
    """
    namespaces = open_lab(state)
    rest = seen_at_rest(directory, state, namespaces)
    if rest is not None:
        shows, drift, reading = rest[0].shown, list[str](), rest[1]
    else:
        shows, drift, reading = _looked_at(directory, state, namespaces)
    assert state.holder is not None
    started: dict[str, dict[str, bool]] = {}
    ended: dict[str, dict[str, str]] = {}
    for program in state.programs:
        alive = programs.running(namespaces, program)
        started.setdefault(program.netns, {})[program.name] = alive
        if not alive:
            ended.setdefault(program.netns, {})[program.name] = programs.how_ended(namespaces, program)
    told = {
        **_row(directory),
        "holder": state.holder.pid,
        "namespaces": [
            {
                **netns,
                **_as_it_is(reading.told.get(netns["netns"]), netns["addresses"]),
                "programs": started.get(netns["netns"], {}),
                "ended": ended.get(netns["netns"], {}),
            }
            for netns in shows["namespaces"]
        ],
        "services": shows["services"],
        "changing": bool(state.following),
        "drift": drift,
    }
    return escapes.as_json(told) if output == "json" else _text(told, width)


def _looked_at(
    directory: LabDirectory, state: LabState, namespaces: Namespaces
) -> tuple[dict[str, Any], list[str], Reading]:
    """What is shown of the topology, what differs from it, and what the kernel says."""
    from netlab.lab import lifecycle
    from netlab.lab.look import as_kept, look
    from netlab.lab.shown import shown

    spec = lifecycle.as_it_is(directory, state)
    had = lifecycle.owned(directory, state, spec)
    found = look(directory, namespaces, had, spec.topology, state, as_kept(directory, state, had[0]))
    return shown(spec.topology), [step.describe() for step in found.steps], found.reading


def _as_it_is(has: Told | None, wanted: Sequence[str]) -> dict[str, Any]:
    """A namespace's addresses and interfaces as the kernel has them, whoever gave them; nothing where it is gone.

    wanted are the topology's, in its order, which go first. Link-local ones that aren't among them are left out: each
    interface has one.
    """
    if has is None:
        return {"addresses": [], "interfaces": []}
    interfaces: dict[int, dict[str, Any]] = {
        link.ifindex: {"ifname": link.ifname, "up": link.up, "addresses": []} for link in has.links
    }
    found: list[str] = []
    for ifindex, raw, prefixlen, _ in has.addresses:
        of = interfaces.get(ifindex)
        if of is None or raw[0] == 127 or raw == _LOOPBACK:
            continue
        address = f"{inet_ntop(AF_INET if len(raw) == 4 else AF_INET6, raw)}/{prefixlen}"
        text = address if of["ifname"] == "lo" else f"{address} {of['ifname']}"
        if len(raw) == 4 or raw[0] != 0xFE or raw[1] & 0xC0 != 0x80 or text in wanted:  # RFC 4291, 2.5.6
            of["addresses"].append(address)
            found.append(text)
    place = {text: index for index, text in enumerate(wanted)}
    return {
        "addresses": sorted(found, key=lambda text: place.get(text, len(place))),
        "interfaces": [interfaces[ifindex] for ifindex in sorted(interfaces)],
    }


_LOOPBACK = bytes(15) + b"\1"


def _end(netns: dict[str, Any], name: str) -> str:
    how = netns["ended"][name]
    return f"ended: {how}" if how else "ended"


def _text(told: dict[str, Any], width: int | None) -> str:
    rows: list[tuple[str, ...]] = [("NAMESPACE", "ROLE", "ADDRESSES", "PROGRAMS")]
    for netns in told["namespaces"]:
        running = [name if alive else f"{name} ({_end(netns, name)})" for name, alive in netns["programs"].items()]
        rows.append((netns["netns"], netns["role"], ", ".join(netns["addresses"]) or "-", ", ".join(running) or "-"))
    parts = [f"lab {told['lab']}: {told['is']}, {told['mode']}, holder {told['holder']}\n\n", aligned(rows, width)]
    if told["services"]:
        services: list[tuple[str, ...]] = [("SERVICE", "CLUSTER IP", "EXTERNAL IP", "PORTS", "ENDPOINTS")]
        for service in told["services"]:
            cells = (service["cluster_ips"], service["external_ips"], service["ports"], service["endpoints"])
            services.append((service["service"], *(", ".join(cell) or "-" for cell in cells)))
        if not any(service["external_ips"] for service in told["services"]):
            services = [(row[0], row[1], *row[3:]) for row in services]
        parts += ["\n", aligned(services, width)]
    if told["fixes"]:
        parts.append(f"\nfixes: {', '.join(told['fixes'])}\n")
    drift = told["drift"]
    if told["changing"]:
        parts.append("\nhalf changed: an `up` is changing it or was interrupted; `netlab up` completes it\n")
    parts.append(
        "\nno drift: the kernel has what the topology says\n" if not drift else "\ndrift (`netlab up` repairs it):\n"
    )
    parts += [f"  {line}\n" for line in drift]
    return "".join(parts)
