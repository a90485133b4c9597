"""load: many connections through the Service at once, all of which get the same large payload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.stimuli import NotApplied
from netlab.record.events import SocketEvent, SocketEventKind
from netlab.yamlspec.shapes import Fields, Integer, Key, Seconds

if TYPE_CHECKING:
    from netlab.experiments.context import Stage
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
        "pausing_percent": Key(Integer(0, 100), "of a hundred clients so many stop reading halfway (default 0)"),
        "pause_s": Key(Seconds(), "for so long (default 1)"),
        "timeout_s": Key(Seconds(), "a connection that isn't over by then has stalled (default the experiment's)"),
    }
)


def apply(stage: Stage, arguments: Mapping[str, Any]) -> None:
    """Let them in; NotApplied where another step connects, or not all could begin in time."""
    from netlab.experiments.load import Crowd, Demand

    if stage.connections or stage.crowd:
        raise NotApplied("a server that nobody else has connected to")
    demand = Demand(
        connections=arguments.get("connections", CONNECTIONS),
        parallel=arguments.get("parallel", PARALLEL),
        timeout_s=arguments.get("timeout_s", stage.timeout_s),
        own_ports=stage.own_ports,
        pausing_percent=arguments.get("pausing_percent", 0),
        pause_s=arguments.get("pause_s", 1.0),
    )
    crowd = Crowd(stage.scene, stage.namespaces, stage.listen(), demand, arguments.get("cpu_percent"))
    stage.make(crowd.start, crowd.close)
    stage.wait(crowd.ended, demand.timeout_s + 1)
    told = crowd.told()
    stage.crowd = crowd
    for each in told:
        _note_errors(stage, each)
    begun = len({each.port for each in told})
    if begun < demand.connections:
        raise NotApplied(f"{demand.connections:,} connections in {demand.timeout_s:g} s: {begun:,} began")


def _note_errors(stage: Stage, told: Told) -> None:
    scene = stage.scene
    ends = (
        (scene.client, told.client_error, told.port, scene.port),
        (scene.server, told.server_error, scene.target_port, told.port),
    )
    for netns, error, local_port, peer_port in ends:
        if error is not None:
            time_ns, code = error
            kind = SocketEventKind.ERROR
            stage.note(SocketEvent(time_ns, netns, kind, code, local_port=local_port, peer_port=peer_port))
