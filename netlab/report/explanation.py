"""An explanation as text and as JSON. Pure."""

from __future__ import annotations

from netlab import escapes
from netlab.analysis.explanation import Explanation, Step, name
from netlab.analysis.timeline import ACCURACY
from netlab.report.wrapping import wrap
from netlab.style import Piece, Style, plain

_TIME_COLUMNS = 16


def render(explanation: Explanation, width: int = 80) -> str:
    """The story as text, ending in a newline; no line is longer than width, which is at least 60 columns."""
    return plain(pieces(explanation, width))


def pieces(explanation: Explanation, width: int = 80) -> list[Piece]:
    """The same, its headline styled."""
    width = max(width, 60)
    flow = explanation.flow
    whose = name(flow) if explanation.protocol == "tcp" else f"{explanation.protocol} {name(flow)}"
    heading = wrap(f"{explanation.ending.upper().replace('-', ' ')}: {whose}", width, subsequent_indent="  ")
    fixes = f"with {', '.join(explanation.fixes)}" if explanation.fixes else "no fix"
    packets = "1 packet" if explanation.packets == 1 else f"{explanation.packets:,} packets"
    lines = wrap(f"lab {explanation.lab}, {fixes}, kernel {explanation.kernel}; {packets} of this flow seen", width)
    lines.append("")
    for place, step in enumerate(explanation.chain):
        at = f"{_after(step, explanation.started_ns):>{_TIME_COLUMNS - 2}}  "
        text = step.text if place == 0 else f"-> {step.text}"
        hang = " " * _TIME_COLUMNS + ("" if place == 0 else "   ")
        lines += wrap(text, width, initial_indent=at, subsequent_indent=hang, break_on_hyphens=False)
    for title, items in (
        ("Also", explanation.notes),
        ("Also reset", explanation.others),
        ("Model and kernel disagree", explanation.disagreements),
        ("Not seen", explanation.unseen),
    ):
        if items:
            lines += ["", f"{title}:"]
            for item in items:
                lines += wrap(item, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    return [Piece("\n".join(heading), Style.STRONG), Piece("\n" + "\n".join(lines) + "\n")]


def as_json(explanation: Explanation) -> str:
    """The story as one JSON object, ending in a newline; times are nanoseconds of CLOCK_REALTIME."""
    flow = explanation.flow
    value = {
        "ending": explanation.ending.value,
        "lab": explanation.lab,
        "kernel": explanation.kernel,
        "fixes": list(explanation.fixes),
        "flow": {
            "protocol": explanation.protocol,
            "client": {"netns": flow.client or None, "address": str(flow.client_address), "port": flow.client_port},
            "service": {"address": str(flow.vip), "port": flow.port},
            "endpoint": {"netns": flow.server or None, "address": str(flow.endpoint), "port": flow.target_port},
            "node": flow.node,
        },
        "packets": explanation.packets,
        "started_ns": explanation.started_ns,
        "chain": [{"text": step.text, "packet": step.number, "time_ns": step.time_ns} for step in explanation.chain],
        "notes": list(explanation.notes),
        "also_reset": list(explanation.others),
        "disagreements": list(explanation.disagreements),
        "unseen": list(explanation.unseen),
        "accuracy": list(ACCURACY),
    }
    return escapes.as_json(value)


def _after(step: Step, started_ns: int) -> str:
    return "" if step.time_ns is None else f"{(step.time_ns - started_ns) / 1e6:+,.3f} ms"
