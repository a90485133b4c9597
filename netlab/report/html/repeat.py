"""How to repeat the run: its command, and the documents that it needs. Pure."""

from __future__ import annotations

from netlab.analysis.result import Result
from netlab.escapes import shell_words
from netlab.record.recording import Recording
from netlab.report.markup import Markup, tag
from netlab.report.page import code, folded


def render(result: Result, recording: Recording) -> Markup:
    """The section: the command, where it is to run, and what it reads."""
    settings = [*recording.settings, *recording.experiment_settings]
    texts = [tag("details", tag("summary", "The topology"), code(recording.topology))]
    if recording.experiment:
        topology, document = "topology.yaml", f"{result.experiment}.yaml"
        saved = f"the topology below saved as {topology} and the experiment as {document}"
        words = [document, "--name", result.lab]
        settings.append(("experiment.topology", topology))
        texts.append(tag("details", tag("summary", "The experiment"), code(recording.experiment)))
    else:
        topology = f"{result.lab}.yaml"
        saved = f"the topology below saved as {topology}"
        words = [topology, "--experiment", result.experiment]
    for path, value in settings:
        words += ["--set", f"{path}={value}"]
    for fix in result.fixes:
        words += ["--fix", fix]
    command = shell_words(["netlab", "run", *words, "--trials", str(len(result.trials))])
    return folded(
        "repeat",
        "How to repeat it",
        tag("p", f"On Linux {recording.kernel}, with {saved}:"),
        code(command),
        *texts,
    )
