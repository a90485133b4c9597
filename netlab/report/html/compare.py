"""The same experiment without a fix and with some on one page: a headline and a figure each, and why it is so. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from netlab.analysis.findings import Findings
from netlab.analysis.result import Result
from netlab.errors import NetlabError
from netlab.escapes import shell_words
from netlab.model import Topology
from netlab.record.recording import Recording
from netlab.report import compare, text
from netlab.report.html import advice, chain, drawn, summary
from netlab.report.linking import linked
from netlab.report.markup import Markup, tag
from netlab.report.page import code, document, facts, folded
from netlab.report.sentence import sentence


def render(runs: Sequence[tuple[Result, Findings]]) -> str:
    """The whole file; the first run is the one that the others are compared with."""
    results = [result for result, _ in runs]
    first, findings = runs[0]
    recording = findings.timeline.recording
    title = f"{first.experiment} in {first.lab}: {', '.join(map(compare.name, results))}"
    cards = [_card(result, each) for result, each in runs]
    top = tag(
        "section",
        tag("h1", compare.outcome(results), id="result", class_=summary.tone(first), tabindex=-1),
        tag("div", *cards, class_="cards"),
        *filter(None, [advice.render(advice.tried(first, results[1:]), _topology(recording))]),
        aria_labelledby="result",
    )
    chains = [part for number, (result, each) in enumerate(runs, 1) if (part := _chain(number, result, each))]
    about = [("Experiment", first.experiment), ("Claim", first.claim), ("Lab", first.lab), ("Kernel", first.kernel)]
    sections = [top, *chains, folded("about", "About these runs", facts(about)), _repeat(results, recording)]
    return document(title, "netlab: what the kernel did", linked(sections))


def _card(result: Result, findings: Findings) -> Markup:
    """One run: its fixes, how it ended, the packets that decided it."""
    trial = drawn.draw(result, findings)
    picture = trial.figure() if trial else None
    name = compare.name(result)
    return tag(
        "article",
        tag("h2", name, id=f"run-{name}"),
        tag("p", text.headline(result), class_=f"verdict {summary.tone(result)}"),
        tag("p", sentence(result)),
        *([tag("p", tag("b", "Why: "), said)] if (said := compare.why(result)) else []),
        *([tag("figure", picture, class_="post")] if picture else []),
        aria_labelledby=f"run-{name}",
    )


def _chain(number: int, result: Result, findings: Findings) -> Markup | None:
    trial = drawn.draw(result, findings)
    if trial is None:
        return None
    steps = tag("ol", *(tag("li", each) for each in chain.steps(trial)), class_="chain")
    return folded(f"chain-{number}", f"Step by step: {compare.name(result)}", steps)


def _repeat(results: Sequence[Result], recording: Recording) -> Markup:
    first, *others = results
    words = ["netlab", "run", "topology.yaml", "--experiment", first.experiment]
    if recording.experiment:
        words = ["netlab", "run", f"{first.experiment}.yaml", "--set", "experiment.topology=topology.yaml"]
    for path, value in (*recording.settings, *recording.experiment_settings):
        words += ["--set", f"{path}={value}"]
    words += ["--compare", ",".join(map(compare.name, others)), "--trials", str(len(first.trials))]
    texts = [tag("p", "With these saved as topology.yaml"), code(shell_words(words)), code(recording.topology)]
    if recording.experiment:
        texts += [tag("p", f"and as {first.experiment}.yaml:"), code(recording.experiment)]
    return folded("repeat", "How to repeat it", *texts)


def _topology(recording: Recording) -> Topology | None:
    try:
        return recording.spec()
    except NetlabError:
        return None
