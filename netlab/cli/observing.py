"""What happens in a lab that is up: `capture` writes packets, `watch` shows events, `explain` says why a reset came."""

import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netlab import terminal
from netlab.cli.arguments import check_netns, find_lab, is_file_name, is_lab, labs_of, one_lab
from netlab.cli.messages import counted
from netlab.cli.options import (
    DataFormat,
    EveryInterfaceOption,
    FormatOption,
    LabArgument,
    LabOption,
    OtherLabOption,
    complete_interface,
    complete_lab,
    complete_netns,
    seconds,
    whole,
)
from netlab.errors import LabError, UsageError
from netlab.linux import interrupts
from netlab.terminal import say

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from netlab.analysis.explanation import Explanation
    from netlab.record.events import Event
    from netlab.record.recording import Recording

app = typer.Typer()


@app.command()
def capture(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME[:IFNAME]]…",
            help="Namespaces, or single interfaces of them; left out: all.",
            autocompletion=complete_interface,
        ),
    ] = None,
    file: Annotated[
        str, typer.Option("--write", "-w", metavar="FILE", help="Where to; - or left out: stdout, into a pipe.")
    ] = "-",
    expression: Annotated[
        str, typer.Option("--filter", metavar="EXPRESSION", help="Only these packets; the language is tcpdump's.")
    ] = "",
    count: Annotated[
        int | None,
        typer.Option("--count", "-c", metavar="N", parser=whole(1), help="Stop after this many packets."),
    ] = None,
    for_s: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", parser=seconds, help="Stop after this many seconds."),
    ] = None,
    snaplen: Annotated[
        int | None,
        typer.Option("--snaplen", "-s", metavar="BYTES", parser=whole(1, 262144), help="Bytes to keep of each packet."),
    ] = None,
    every_interface: EveryInterfaceOption = False,
    lab: LabOption = None,
) -> None:
    """Write the packets of several namespaces into a pcapng file.

    Each packet is written where it is first seen: in the lab, or in each namespace that is named. Ctrl-C ends it.
    """
    from netlab.lab.lifecycle import as_it_is
    from netlab.lab.standing import open_own
    from netlab.observe import capture as captures

    if file == "-" and terminal.data_is_shown():
        raise UsageError("refusing to write pcapng to a terminal", "-w FILE, or a pipe: netlab capture | tshark -r -")
    directory, state = find_lab(lab)
    roles = {netns.name: netns.role.value for netns in as_it_is(directory, state).topology.namespaces}
    namespaces = open_own(state)
    tapped = captures.taps(namespaces, roles, names or [])
    snaplen_bytes = captures.WHOLE_FRAME_BYTES if snaplen is None else snaplen
    program = None
    if expression:
        # Where there is no network: a name in the expression isn't asked for outside.
        with namespaces.scratch():
            program = captures.compiled(expression, snaplen_bytes)
    with captures.Capture(
        namespaces,
        tapped,
        expression=expression,
        program=program,
        snaplen_bytes=snaplen_bytes,
        once=captures.Once.NEVER if every_interface else captures.once(names or []),
    ) as taking:
        with interrupts.as_news() as stop, captures.sink(file) as out:
            say(f"capturing on {', '.join(f'{tap.netns}/{tap.ifname}' for tap in tapped)}")
            try:
                end = taking.run(out, stop, namespaces.lifeline, count=count, for_s=for_s, note=say)
            except BrokenPipeError:  # whoever read it has seen enough
                sys.exit(128 + signal.SIGPIPE)
        captured = sum(interface.captured for interface in taking.interfaces)
        dropped = sum(interface.dropped for interface in taking.interfaces)
        say(f"{counted(captured, 'packet')} captured, {dropped} dropped")
        for interface in taking.interfaces:
            if interface.dropped:
                say(f"  {interface.tap.netns}/{interface.tap.ifname}: {interface.dropped} dropped")
    if end is captures.End.LAB_GONE:
        raise _gone(state.lab)
    if end is captures.End.INTERFACES_GONE:
        raise LabError("no interface is left to capture on", "`netlab up` makes what is missing")


@app.command()
def watch(
    argument: LabArgument = None,
    lab: OtherLabOption = None,
    netns: Annotated[
        list[str] | None,
        typer.Option(
            "--netns", metavar="NAME", help="A namespace to watch; left out: all.", autocompletion=complete_netns
        ),
    ] = None,
    for_s: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", parser=seconds, help="Stop after this many seconds."),
    ] = None,
) -> None:
    """Show what happens in a lab, an event a line.

    Ctrl-C ends it.
    """
    from netlab.lab.lifecycle import as_it_is
    from netlab.lab.standing import open_own
    from netlab.observe import recorder
    from netlab.record.observers import describe_observer, describe_unobserved
    from netlab.report.live import line, style
    from netlab.style import Piece

    directory, state = find_lab(one_lab(argument, lab))
    topology = as_it_is(directory, state).topology
    for name in netns or []:
        check_netns(state, name)
    namespaces = open_own(state)
    started_ns = time.time_ns()

    def show(events: "Sequence[Event]") -> None:
        if not events:
            say(f"watching {', '.join(netns or [each.name for each in topology.namespaces])}")
        for event in events:
            terminal.show([Piece(line(event, started_ns), style(event)), Piece("\n")])
        terminal.flush()

    with interrupts.as_news() as news:
        ends = _Ends(news, namespaces.lifeline)
        seen = recorder.record(
            topology,
            namespaces,
            recorder.Source(),
            netns,
            for_s,
            stop=ends.reached,
            on_events=show,
            on_failed=lambda unobserved: say(f"not seen any more: {describe_unobserved(unobserved)}"),
            keep_events=False,
        )
    lost = [
        f"{counted(count, 'event')} lost by {describe_observer(observer)}" for observer, count in seen.lost if count
    ]
    for line_ in (*lost, *(f"not seen: {describe_unobserved(what)}" for what in seen.unobserved)):
        say(line_)
    if not lost:
        say("no event lost")
    if ends.lab_gone:
        raise _gone(state.lab)


@app.command()
def explain(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[LAB|FILE]",
            help="A lab that is up, or a bundle; left out: as for `watch`.",
            autocompletion=complete_lab,
        ),
    ] = None,
    lab: Annotated[
        str | None,
        typer.Option("--lab", "-l", metavar="LAB", help="A lab that is up.", autocompletion=complete_lab),
    ] = None,
    flow: Annotated[
        str | None,
        typer.Option("--flow", metavar="ADDRESS:PORT", help="The client's end; left out: what failed first."),
    ] = None,
    for_s: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", parser=seconds, help="Seconds to watch a lab at most; left out: 30."),
    ] = None,
    output: FormatOption = DataFormat.text,
) -> None:
    """Say why a connection was reset, packet by packet.

    Or why UDP was not answered. Of a bundle, or of a lab that is up: then it watches until a connection is reset.
    """
    from netlab.analysis.findings import analyse
    from netlab.analysis.telling import tell
    from netlab.report import explanation

    if source is not None and lab is None and not is_lab(source) and is_file_name(source) and not labs_of(source):
        if for_s is not None:
            raise UsageError("--for is how long to watch a lab, and this is a file")
        if not Path(source).exists():
            raise UsageError(f"{source}: there is no such file", "name a lab, or what `netlab run --bundle FILE` wrote")
        told = _of_a_file(Path(source), flow)
    else:
        recording = _watch_for_reset(one_lab(source, lab), flow, _EXPLAIN_S if for_s is None else for_s)
        told = tell(analyse(recording), flow)
    if output is DataFormat.json:
        terminal.write(explanation.as_json(told))
    else:
        terminal.show(explanation.pieces(told, terminal.columns()))


def _of_a_file(file: Path, flow: str | None) -> "Explanation":
    """Why the flow, or the first that was reset, ended: of a bundle, on the clock of its report."""
    from netlab.analysis.findings import analyse
    from netlab.analysis.telling import tell
    from netlab.record.bundle import is_bundle, recording_of
    from netlab.report.bundle import read

    if not is_bundle(file):
        return tell(analyse(recording_of(file)), flow)
    bundle = read(file)
    told = tell(analyse(bundle.recording), flow)
    return told.since({trial.flow.headers()[0]: trial.started_ns for trial in bundle.result.trials})


_EXPLAIN_S = 30.0


def _watch_for_reset(lab: str | None, flow: str | None, seconds: float) -> "Recording":
    """What happens in a lab until a connection (the flow's, if one is named) is reset, time is up, or Ctrl-C.

    LabError where the lab is gone before that.
    """
    from netlab.capabilities.probes import deciding
    from netlab.lab.lifecycle import as_it_is
    from netlab.lab.standing import open_own
    from netlab.observe import recorder
    from netlab.observe.until_reset import UntilReset

    directory, state = find_lab(lab)
    spec = as_it_is(directory, state)
    namespaces = open_own(state)
    reset = UntilReset(flow)

    def look(events: "Sequence[Event]") -> None:
        if not events:
            whose = f"{flow} is reset" if flow else "a connection is reset"
            say(f"watching {state.lab} until {whose}, for {seconds:g} s at most; Ctrl-C ends it")
        reset.look(events)

    with interrupts.as_news() as news:
        ends = _Ends(news, namespaces.lifeline)
        recording = recorder.record(
            spec.topology,
            namespaces,
            recorder.Source(spec.text, spec.settings, spec.fixes, capabilities=deciding()),
            seconds=seconds,
            stop=lambda: reset.over() or ends.reached(),
            on_events=look,
        )
    if ends.lab_gone and not reset.seen():
        raise _gone(state.lab)
    return recording


class _Ends:
    """Whether a watch has been asked to end, or its lab is gone, of which the descriptor lifeline tells."""

    def __init__(self, news: "socket.socket", lifeline: int) -> None:
        self.lab_gone = False
        self._lifeline = lifeline
        self._poll = select.poll()
        for fd in (news.fileno(), lifeline):
            self._poll.register(fd, select.POLLIN)

    def reached(self) -> bool:
        readable = [fd for fd, _ in self._poll.poll(0)]
        self.lab_gone = self._lifeline in readable
        return bool(readable)


def _gone(lab: str) -> LabError:
    return LabError(f"the lab {lab} is gone: it was taken down, or its holder has ended")
