"""The same experiment without a fix and with some, side by side: as text, and why each fix helped. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netlab import escapes
from netlab.analysis.result import Link, Outcome, Result
from netlab.kubeproxy.fixes import PLAIN
from netlab.report import json as report_json
from netlab.report import text
from netlab.report.sentence import sentence
from netlab.report.wrapping import wrap


def name(result: Result) -> str:
    """What a run is called beside others: by its fixes."""
    return "+".join(result.fixes) or PLAIN


def why(result: Result) -> str:
    """What the fixes changed, by what was seen in the trial that is drawn; empty of a run without fixes or trials."""
    if not result.fixes or not result.trials:
        return ""
    trial = result.shown()[1]
    links = {piece.link: piece for piece in trial.evidence}
    flow, fixes = trial.flow, " and ".join(result.fixes)
    if trial.outcome is Outcome.INCONCLUSIVE:
        return ""
    if trial.outcome is not Outcome.COMPLETED:
        stalled = f"Nothing that is dropped reaches {flow.client}, and what is sent again is dropped, too."
        return stalled if trial.outcome is Outcome.STALLED else f"{fixes} changed nothing of what led to it."
    invalid = links.get(Link.INVALID)
    if invalid is not None and Link.REPLY_TRANSLATED not in links:
        return (
            f"The packet was INVALID on {invalid.event.netns} again, but it was dropped there: {flow.client} never saw "
            f"it and sent no RST. {flow.server} sent the data again, and that was let through."
        )
    if Link.REPLY_TRANSLATED in links:
        return f"The packet was not INVALID: NAT gave it the Service's address, and {flow.client} accepted it."
    return f"No packet reached {flow.client} with {flow.server}'s own address."


def outcome(runs: Sequence[Result]) -> str:
    """All runs in one sentence: "Without a fix the connection is reset in 20 of 20 trials; be-liberal prevents it."."""
    first, *fixed = runs
    said = sentence(first)
    helps = [name(each) for each in fixed if each.prevents]
    fails = [name(each) for each in fixed if each.prevents is False]
    parts = [f"Without a fix {said[0].lower()}{said[1:].rstrip('.')}" if not first.fixes else said.rstrip(".")]
    parts += [f"{_all(helps)} {'prevents' if len(helps) == 1 else 'prevent'} it"] if helps else []
    parts += [f"{_all(fails)} {'does' if len(fails) == 1 else 'do'} not help"] if fails else []
    return "; ".join(parts) + "."


def render(runs: Sequence[Result], width: int) -> str:
    """A headline a run and why it is so, ending in a newline; no line is longer than the width, of at least 60."""
    width = max(width, 60)
    first = runs[0]
    lines = wrap(f"{first.experiment} in lab {first.lab}, kernel {first.kernel}", width)
    for each in runs:
        lines += ["", *wrap(f"{name(each)}: {text.headline(each)}", width)]
        for words in (sentence(each), why(each)):
            lines += wrap(words, width, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines) + "\n"


def as_json(runs: Sequence[Result]) -> str:
    """One object whose `runs` are each as `run --format json` has it, and why its fixes helped."""
    members: list[dict[str, Any]] = [report_json.members(each) | {"why": why(each) or None} for each in runs]
    return escapes.as_json({"format": report_json.FORMAT, "runs": members})


def _all(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
