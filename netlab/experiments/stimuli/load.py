"""load: many connections through the Service at once, all of which get the same large payload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.not_applied import NotApplied
from netlab.record.events import SocketEvent, SocketEventKind
from netlab.yamlspec.shapes import Fields, Integer, Key, Seconds

if TYPE_CHECKING:
    from netlab.experiments.context import Context
    from netlab.experiments.load import Told

DOC = (
    "many clients connect to the Service, and each gets the payload; done when all are through or timeout_s is over. "
    "Each connection is judged by itself, and resets are told per thousand"
)
CONNECTIONS, PARALLEL = 500, 100
ARGUMENTS = Fields(
    {
        "connections": Key(Integer(1, 2_000), f"how many (default {CONNECTIONS}); for more of them there are trials"),
        "parallel": Key(Integer(1, 400), f"how many at a time (default {PARALLEL})"),
        "cpu_percent": Key(
            Integer(1, 1000),
            "so much of one CPU for the server's process, by a cgroup where this user may make one (default no limit)",
        ),
        "pausing_percent": Key(Integer(0, 100), "percentage of clients that stop reading halfway (default 0)"),
        "pause_s": Key(Seconds(), "for so long (default 1)"),
        "timeout_s": Key(Seconds(), "a connection that isn't over by then has stalled (default the experiment's)"),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Let them in; NotApplied where another step connects, or not all could begin in time."""
    from netlab.experiments.load import Demand, Load

    if context.connections or context.load:
        raise NotApplied("a server that nobody else has connected to")
    demand = Demand(
        connections=arguments.get("connections", CONNECTIONS),
        parallel=arguments.get("parallel", PARALLEL),
        timeout_s=arguments.get("timeout_s", context.timeout_s),
        own_ports=context.own_ports,
        pausing_percent=arguments.get("pausing_percent", 0),
        pause_s=arguments.get("pause_s", 1.0),
    )
    load = Load(context.roles, context.namespaces, context.listen().sockets[0], demand, arguments.get("cpu_percent"))
    context.make(load.start, load.close)
    context.wait(load.ended, demand.timeout_s + 1)
    told = load.told()
    context.load = load
    for each in told:
        _note_errors(context, each)
    begun = len({each.port for each in told})
    if begun < demand.connections:
        raise NotApplied(f"{demand.connections:,} connections in {demand.timeout_s:g} s: {begun:,} began")


def _note_errors(context: Context, told: Told) -> None:
    roles = context.roles
    ends = (
        (roles.client, told.client_error, told.port, roles.port),
        (roles.server, told.server_error, roles.target_port, told.port),
    )
    for netns, error, local_port, peer_port in ends:
        if error is not None:
            time_ns, code = error
            kind = SocketEventKind.ERROR
            context.note(SocketEvent(time_ns, netns, kind, code, local_port=local_port, peer_port=peer_port))
