"""What the observers lost or could not observe, and where model and kernel disagree. Pure."""

from __future__ import annotations

from netlab.analysis.explanation import Explanation
from netlab.record.events import CounterChange
from netlab.record.observers import describe_observer, describe_unobserved
from netlab.record.recording import Recording
from netlab.report.markup import Markup, tag
from netlab.report.page import bullets, folded, table


def render(recording: Recording, story: Explanation | None) -> Markup:
    """The section; story is the drawn trial's, None without a trial."""
    lost = [(describe_observer(observer), f"{count:,}") for observer, count in recording.lost if count]
    disagreements: tuple[str, ...] = ()
    unobserved = tuple(map(describe_unobserved, recording.unobserved))
    said = [
        tag("p", f"{len(recording.lost)} observers were open; none lost an event.")
        if not lost
        else table(("Observer", "Events lost"), lost)
    ]
    if story:
        unobserved, disagreements = story.unseen, story.disagreements
    if unobserved:
        said += [tag("p", "Not observed, or not told for sure:"), bullets(unobserved)]
    if disagreements:
        said += [tag("p", "Where the kernel's log and the window model disagree:"), bullets(disagreements)]
    counters = [
        (event.netns, event.name, f"{event.by:+,}")
        for event in recording.events
        if isinstance(event, CounterChange) and event.by
    ]
    if counters:
        grid = table(("Namespace", "Counter", "Change"), counters)
        said.append(tag("details", tag("summary", "The kernel's counters, from beginning to end"), grid))
    return folded("unseen", "What was not seen", *said)
