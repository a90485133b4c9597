"""The command line: the only place that prints or exits, and that joins the pure rooms with the others.

Data goes to stdout, messages to stderr. A command imports what it needs when it needs it: start-up time counts. That
is also why annotations are not postponed in this file: typer would compile each of them again.
"""

import os
import signal
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from netlab import interrupts
from netlab.errors import LabError, NetlabError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from netlab.bundle import Facts
    from netlab.events import Event
    from netlab.experiments.catalogue import Play
    from netlab.judge import Result
    from netlab.lab import Done, Outcome, Wanted
    from netlab.matrix.grid import Task
    from netlab.recording import Recording
    from netlab.state import LabDirectory, LabState
    from netlab.steps import Step

app = typer.Typer(
    name="netlab",
    help="Build Linux network labs from YAML, make the kernel misbehave in them, and see why.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
fix_app = typer.Typer(help="The mitigations, on a lab that is up.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(fix_app, name="fix")


def main() -> None:
    """Run the command line; it ends in SystemExit. Every error that netlab raises on purpose becomes a message."""
    try:
        try:
            app(prog_name="netlab")
        finally:
            sys.stdout.flush()
    except NetlabError as error:
        _say(f"netlab: {error}" if not _is_file_report(error) else str(error))
        sys.exit(error.exit_code)
    except interrupts.Interrupted:
        _say("netlab: interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        _say(f"netlab: {error.filename or 'system error'}: {error.strerror or error}")
        sys.exit(1)


def _is_file_report(error: NetlabError) -> bool:
    from netlab.errors import TopologyError

    return isinstance(error, TopologyError)


def _say(message: str) -> None:
    print(message, file=sys.stderr)


# --- arguments and options -------------------------------------------------------------------------------------------


class PlanFormat(StrEnum):
    text = "text"
    json = "json"
    shell = "shell"


class DataFormat(StrEnum):
    text = "text"
    json = "json"


class Expectation(StrEnum):
    reproduced = "reproduced"
    not_reproduced = "not-reproduced"


class RulesFormat(StrEnum):
    nft = "nft"
    iptables_save = "iptables-save"


def _labs(incomplete: str) -> list[str]:
    from netlab.state import labs, run_directory

    return [lab for lab in labs(run_directory()) if lab.startswith(incomplete)]


def _namespaces(incomplete: str) -> list[str]:
    from netlab.state import LabDirectory, labs, run_directory

    root = run_directory()
    states = [LabDirectory(root, lab).read() for lab in labs(root)]
    names = {name for state in states if state for name, _ in state.namespaces}
    return sorted(name for name in names if name.startswith(incomplete))


def _fixes(context: typer.Context, incomplete: str) -> list[str]:
    """The built-in fixes, and those of the topology on the command line or, for `fix`, of the labs that are up."""
    from contextlib import suppress

    from netlab import lab, topology
    from netlab.fixes import FIXES
    from netlab.state import labs, run_directory

    found = dict.fromkeys(FIXES)
    with suppress(NetlabError):
        if "topology" in context.params:
            # Where an option lacks its value, as here, click leaves the arguments unsorted.
            file = _file(context.params["topology"] or next(iter(context.args), None))
            found |= dict.fromkeys(fix.name for fix in topology.read(file)[1].fixes)
        else:
            for name in labs(run_directory()):
                state = _directory(name).read()
                if state is not None:
                    wanted = lab.as_it_is(_directory(name), state)
                    found |= dict.fromkeys(fix.name for fix in wanted.topology.fixes)
    return [name for name in found if name.startswith(incomplete)]


TopologyArgument = Annotated[
    str | None,
    typer.Argument(metavar="[TOPOLOGY]", help="A YAML file, or - for stdin; left out: topology.yaml here."),
]
LabArgument = Annotated[
    str | None,
    typer.Argument(metavar="[LAB]", help="A lab's name; left out: the only one.", autocompletion=_labs),
]
LabOption = Annotated[
    str | None,
    typer.Option("--lab", "-l", help="A lab's name; left out: the only one.", autocompletion=_labs),
]
NetnsArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A namespace of the lab.", autocompletion=_namespaces)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the topology: vars.window=1048576."),
]
FixOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fix", metavar="NAME", help="With a mitigation: be-liberal; `fix list` has them all.", autocompletion=_fixes
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="Another name for the lab."),
]
RootOption = Annotated[
    bool | None,
    typer.Option("--root/--rootless", help="Namespaces that `ip netns` sees, or in a user namespace of their own."),
]
LadderOption = Annotated[
    bool, typer.Option("--ladder", help="Print the drawn trial's packets across all namespaces, too.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the report with its pictures as one HTML file.")
]


def _file(topology: str | None) -> str:
    if topology is not None:
        return topology
    for candidate in ("topology.yaml", "topology.yml"):
        if Path(candidate).exists():
            return candidate
    raise UsageError("there is no topology.yaml here", "name a file: `netlab up FILE`, or - for stdin")


def _settings(pairs: list[str] | None) -> tuple[tuple[str, str], ...]:
    settings = []
    for pair in pairs or []:
        path, equals, value = pair.partition("=")
        if not equals or not path:
            raise UsageError(f"--set {pair}: not of the form PATH=VALUE", "for instance --set vars.window=4096")
        settings.append((path, value))
    return tuple(settings)


def _wanted(
    topology: str | None, settings: tuple[tuple[str, str], ...], fixes: list[str] | None, name: str | None
) -> "Wanted":
    from netlab import fixes as mitigations
    from netlab.lab import Wanted
    from netlab.topology import read_text

    file = _file(topology)
    text = read_text(file)
    names = tuple(dict.fromkeys(fixes or []))
    return Wanted(mitigations.load(text, file, settings, name, names), text, _absolute(file), settings, names)


def _absolute(file: str) -> str | None:
    return None if file == "-" else str(Path(file).resolve())


def _directory(lab: str) -> "LabDirectory":
    from netlab.state import LabDirectory, run_directory

    return LabDirectory(run_directory(), lab)


def _lab(lab: str | None) -> "tuple[LabDirectory, LabState]":
    """The directory and state of the lab that a command means."""
    from netlab.state import choose, run_directory

    directory = _directory(choose(run_directory(), lab))
    state = directory.read()
    if state is None:
        raise LabError(
            f"the lab {directory.lab} was never begun", f"`netlab down {directory.lab}` removes what is left"
        )
    return directory, state


class _Progress:
    """A line on the terminal that counts, or says what is waited for, once something takes more than a second.

    Nothing into a pipe.
    """

    def __init__(self, what: str, total: int, *, quiet: bool = False) -> None:
        self._what = what
        self._total = total
        self._shown = 0.0 if not quiet and sys.stderr.isatty() else float("inf")
        self._next = time.monotonic() + 1.0
        self._count = 0

    def step(self, _step: object = None) -> None:
        self.at(self._count + 1)

    def at(self, count: int) -> None:
        self._count = count
        self.show(f"{self._what}: {count}/{self._total}")

    def waiting(self, what: str) -> None:
        self.show(f"waiting for {what} …")

    def show(self, line: str) -> None:
        if self._shown != float("inf") and time.monotonic() > self._next:
            self._next = time.monotonic() + 0.1
            self._shown = 1.0
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            print(f"\r\033[K{line[: columns - 1]}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown == 1.0:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


# --- the life of a lab -----------------------------------------------------------------------------------------------


@app.command()
def up(
    topology: TopologyArgument = None,
    settings: SetOption = None,
    fix: FixOption = None,
    name: NameOption = None,
    root: RootOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the steps, and do nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print each step.")] = False,
) -> None:
    """Build a lab; a lab that is up is made to follow its topology."""
    from netlab import lab, plan

    wanted = _wanted(topology, _settings(settings), fix, name)
    directory = _directory(wanted.topology.name)
    if dry_run:
        steps = lab.pending(directory, wanted)
        sys.stdout.write(plan.as_text(steps, f"{wanted.topology.name}-") if steps else "")
        return
    outcome = _up(directory, wanted, root, quiet=quiet, verbose=verbose)
    if not quiet:
        _say(_summary(wanted, outcome, verbose=verbose))


def _up(
    directory: "LabDirectory", wanted: "Wanted", root: bool | None, *, quiet: bool = False, verbose: bool = False
) -> "Outcome":
    from netlab import lab

    interrupts.stop_on_signals()
    topology = wanted.topology
    total = sum(1 + len(n.routes) + len(n.sysctls) for n in topology.namespaces) + 6 * len(topology.veths)
    progress = _Progress(f"building {topology.name}, steps", total, quiet=quiet or verbose)

    def show(step: "Step") -> None:
        _say(step.describe())

    done: Done = show if verbose else progress.step
    try:
        rootless = None if root is None else not root
        return lab.up(directory, wanted, rootless=rootless, done=done, waiting=progress.waiting)
    finally:
        progress.end()


def _summary(wanted: "Wanted", outcome: "Outcome", *, verbose: bool) -> str:
    topology = wanted.topology
    before = "removed what an interrupted command had left; " if outcome.leftovers else ""
    if outcome.built:
        counts = [
            _count(len(topology.namespaces), "namespace"),
            _count(len(topology.veths), "link"),
            _count(len(topology.services), "service"),
        ]
        fixes = f", with {' and '.join(wanted.fixes)}" if wanted.fixes else ""
        return f"{before}lab {topology.name} is up: {', '.join(counts)}{fixes}"
    if not outcome.steps:
        return f"lab {topology.name} is up: nothing to do"
    lines = [f"lab {topology.name} is up: {_count(len(outcome.steps), 'change')}"]
    if not verbose:
        lines += [f"  {step.describe()}" for step in outcome.steps]
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@app.command()
def down(
    lab: LabArgument = None,
    all_labs: Annotated[bool, typer.Option("--all", help="Take every lab of this user down.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Take a lab down, from its state alone; a lab that isn't there is success."""
    from netlab.lab import down as take_down
    from netlab.state import choose, labs, remove_if_empty, run_directory

    root = run_directory()
    if all_labs and lab is not None:
        raise UsageError("--all and a lab's name don't go together")
    there = labs(root)
    if lab is None and there and not all_labs:
        doomed = [choose(root, None)]
    else:  # an empty name is a lab's that isn't there, not one left out
        doomed = [name for name in there if all_labs or name == lab]
    for name in doomed:
        for left in take_down(_directory(name)):
            _say(f"netlab: {left}")
        if not quiet:
            _say(f"lab {name} is down")
    remove_if_empty(root)
    if not doomed and not quiet:
        is_file = lab is not None and lab.endswith((".yaml", ".yml"))
        hint = "; that is a file: `netlab down` takes a lab's name" if is_file else ""
        what = "no lab is up" if lab is None else f"no lab is called {lab or repr(lab)}"
        _say(f"{what}: nothing to do{hint}")


@app.command()
def status(
    lab: Annotated[
        str | None,
        typer.Argument(metavar="[LAB]", help="A lab's name; left out: all labs, each in a line.", autocompletion=_labs),
    ] = None,
    output: Annotated[DataFormat, typer.Option("--format", help="text or json.")] = DataFormat.text,
) -> None:
    """The labs that are up; or one lab's namespaces, addresses, services, programs and drift."""
    from netlab import status as looks

    text = looks.overview(output.value) if lab is None else looks.detail(*_lab(lab), output.value)
    sys.stdout.write(text)


# --- inside a lab ----------------------------------------------------------------------------------------------------


@app.command(
    "exec",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
)
def execute(context: typer.Context, name: NetnsArgument, lab: LabOption = None) -> None:
    """Run a program inside a namespace: `netlab exec client -- curl http://web/`."""
    argv = context.args[1:] if context.args[:1] == ["--"] else context.args
    if not argv:
        raise UsageError("there is no command to run", f"`netlab exec {name} -- COMMAND…`, or `netlab shell {name}`")
    _run_inside(name, argv, lab)


@app.command()
def shell(name: NetnsArgument, lab: LabOption = None) -> None:
    """An interactive shell inside a namespace."""
    _run_inside(name, [os.environ.get("SHELL") or "/bin/sh"], lab)


def _run_inside(name: str, argv: list[str], lab: str | None) -> NoReturn:
    from netlab.lab import open_lab

    _, state = _lab(lab)
    namespaces = open_lab(state)
    _check_netns(state, name)
    # debian_chroot is what Debian's and Ubuntu's shells show in their prompt.
    environment = {**os.environ, "debian_chroot": f"{state.lab}/{name}", "NETLAB_LAB_NETNS": name}
    status = namespaces.run(name, argv, environment)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # end as the program did, so that the caller's shell sees the same
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code if code >= 0 else 128 - code)


def _check_netns(state: "LabState", name: str) -> None:
    names = [netns for netns, _ in state.namespaces]
    if name not in names:
        raise UsageError(f"the lab {state.lab} has no namespace {name}", f"it has: {', '.join(names)}")


# --- pure looks ------------------------------------------------------------------------------------------------------


@app.command()
def plan(
    topology: TopologyArgument = None,
    settings: SetOption = None,
    fix: FixOption = None,
    name: NameOption = None,
    output: Annotated[PlanFormat, typer.Option("--format", help="text, json, or a shell script.")] = PlanFormat.text,
) -> None:
    """What `up` does, step by step, each with its `ip` / `nft` / `sysctl` twin."""
    from netlab import plan as plans

    wanted = _wanted(topology, _settings(settings), fix, name).topology
    steps = plans.up(wanted)
    texts = {
        PlanFormat.text: lambda: plans.as_text(steps, f"{wanted.name}-"),
        PlanFormat.json: lambda: plans.as_json(steps, wanted),
        PlanFormat.shell: lambda: plans.as_shell(steps, wanted),
    }
    sys.stdout.write(texts[output]())


@app.command()
def lint(topology: TopologyArgument = None, settings: SetOption = None, name: NameOption = None) -> None:
    """Check a topology with its experiments and fixes, or an experiment: each problem, with its place and a hint."""
    from netlab import tables
    from netlab.lab import Wanted
    from netlab.topology import read_text, with_each_fix

    file = _file(topology)
    text, pairs = read_text(file), _settings(settings)
    from netlab.experiments import catalogue
    from netlab.experiments.scene import scene

    found = catalogue.plays(text, file, pairs, name)
    for each in found:
        try:
            scene(each.topology, each.experiment)
        except UsageError as error:
            raise UsageError(f"{file}: the experiment {each.experiment.name}: {error.message}", error.hint) from None
    if catalogue.is_document(text, file):
        _say(f"{file}: the experiment {found[0].experiment.name} is sound")
        return
    own = tuple((path, value) for path, value in pairs if not path.startswith(catalogue.OWN))
    sound = with_each_fix(text, file, own, name)
    unsaid = ""
    try:
        for fix, made in sound.items():
            tables.check(Wanted(made, text, file, own, (fix,)))
    except UnsupportedError as error:
        unsaid = f"; its tables were not checked: {error.message}"
    counts = [_count(len(found), "experiment")] if found else []
    counts += [f"{len(sound) - 1} fix{'es' if len(sound) > 2 else ''} of its own"] if len(sound) > 1 else []
    more = f", with {' and '.join(counts)}" if counts else ""
    _say(f"{file}: lab {sound[''].name} is sound{more}{unsaid}")


class Document(StrEnum):
    topology = "topology"
    experiment = "experiment"


@app.command()
def schema(
    of: Annotated[Document, typer.Argument(metavar="[topology|experiment]", help="Of which file.")] = Document.topology,
) -> None:
    """The JSON Schema of a topology, or of an experiment's file, for editors."""
    from netlab.schema import text

    sys.stdout.write(text(of.value))


@app.command()
def rules(
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node of the topology.")],
    topology: TopologyArgument = None,
    settings: SetOption = None,
    fix: FixOption = None,
    output: Annotated[RulesFormat, typer.Option("--format", help="nft or iptables-save text.")] = RulesFormat.nft,
) -> None:
    """The NAT rules that kube-proxy would install on a node."""
    from netlab.kubeproxy import ruleset

    wanted = _wanted(topology, _settings(settings), fix, None).topology
    found = ruleset(wanted, node)
    if found is None:
        nodes = ", ".join(wanted.kube_proxy.nodes)
        raise UsageError(f"{node} gets no rules", f"these do: {nodes}" if nodes else "no node of this topology does")
    sys.stdout.write(found.nft() if output is RulesFormat.nft else found.iptables_save())


# --- experiments -----------------------------------------------------------------------------------------------------


@app.command()
def run(
    topology: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPOLOGY|EXPERIMENT|LAB]",
            help="A topology's file, an experiment's, or a lab that is up; left out: as for `up`.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="How often to try.")] = 20,
    settings: SetOption = None,
    fix: FixOption = None,
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", "--trigger", "-e", metavar="NAME", help="Which experiment; left out: the first."),
    ] = None,
    expect: Annotated[
        Expectation | None,
        typer.Option("--expect", help="What exit code 0 stands for; left out: what the experiment's document expects."),
    ] = None,
    name: NameOption = None,
    root: RootOption = None,
    output: Annotated[DataFormat, typer.Option("--format", help="text or json.")] = DataFormat.text,
    ladder: LadderOption = False,
    html: HtmlOption = None,
    pcapng: Annotated[
        Path | None, typer.Option("--pcapng", metavar="FILE", help="Write the drawn trial's packets, with comments.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="FILE", help="Write all of the run into one file, for `netlab report`."),
    ] = None,
) -> None:
    """Play an experiment and say what the kernel did: builds the lab if it isn't up, and leaves it as it was."""
    from netlab import fixes as mitigations
    from netlab import lab, playing
    from netlab.capabilities import probe

    _check_report_options(output, ladder=ladder)
    _check_places(html, pcapng, bundle)
    play = _play(topology, experiment, _settings(settings), name)
    fixes = tuple(dict.fromkeys(fix or ()))
    fixed = mitigations.load(play.text, play.file, play.settings, play.topology.name, fixes)
    wanted = lab.Wanted(fixed, play.text, _absolute(play.file), play.settings, fixes)
    capabilities = playing.there(play, probe(play.experiment.capabilities()))
    directory = _directory(wanted.topology.name)
    with playing.standing(directory, wanted, None if root is None else not root) as wanted:
        keep_frames = pcapng is not None or bundle is not None
        result, recording, facts = _run(
            directory, wanted, play, capabilities, trials, keep_frames=keep_frames, ask=bundle is not None
        )
    _report(result, recording, output, ladder=ladder, html=html)
    if pcapng is not None:
        from netlab.report.packets import render

        _write(pcapng, render(result, recording, drawn_only=True))
    if bundle is not None and facts is not None:
        from netlab import bundle as bundles

        bundles.write(bundle, wanted.topology, result, recording, facts)
        _say(f"wrote {bundle}")
    sys.exit(result.exit_code(expect))


@app.command()
def matrix(
    topology: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPOLOGY|EXPERIMENT]", help="A topology's file, or an experiment's; else as for `up`."
        ),
    ] = None,
    experiment: Annotated[
        list[str] | None,
        typer.Option("--experiment", "-e", metavar="NAME", help="Only this experiment, and others named so."),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option("--fix", metavar="NAME", help="Only plain and this fix, or several: a+b.", autocompletion=_fixes),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="How often to play each cell.")] = 1,
    settings: SetOption = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="So many cells at a time; left out: what the machine bears."),
    ] = None,
    name: NameOption = None,
    root: RootOption = None,
    output: Annotated[DataFormat, typer.Option("--format", help="text or json.")] = DataFormat.text,
    html: HtmlOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a matrix was interrupted.")] = False,
) -> None:
    """Play every experiment of a topology with every fix, in labs of their own: one table."""
    from netlab import lab
    from netlab.experiments import catalogue
    from netlab.matrix import grid, play
    from netlab.report import matrix as as_text
    from netlab.report import matrix_json as as_json
    from netlab.state import labs, run_directory
    from netlab.topology import read_text

    _check_places(html)
    if topology in labs(run_directory()) and not Path(topology or "").exists():
        own = _lab(topology)[1].file or "FILE"
        raise UsageError(f"{topology} is a lab, and a matrix is played in labs of its own", f"`netlab matrix {own}`")
    file, pairs = _file(topology), _settings(settings)
    found = catalogue.plays(read_text(file), file, pairs, name)
    plays = grid.chosen(found, experiment or (), file)
    across = grid.columns(plays, fix or ())
    manner = play.Manner(trials, jobs or play.default_jobs(), root is False or (root is None and os.geteuid() != 0))
    lab.check_privilege(rootless=manner.rootless)
    lab_name = found[0].topology.name
    progress = _Progress(lab_name, 0)

    def look(done: int, total: int, at_work: "Sequence[Task]") -> None:
        cells = ", ".join(f"{task.cell.experiment} with {task.cell.fix}" for task in at_work)
        progress.show(f"{lab_name}: {done}/{total} cells; playing {cells}")

    try:
        with interrupts.as_news() as stop:
            made = play.play(plays, across, lab_name, pairs, manner, stop, look, resume=resume)
    finally:
        progress.end()
    if isinstance(made, play.Stopped):
        kept = f"{_count(made.kept, 'cell')} of {made.playable} {'is' if made.kept == 1 else 'are'} kept"
        kept += ": with --resume the others are played"
        _say(f"netlab: interrupted; {kept if made.kept else 'no cell was done'}")
        sys.exit(130)
    sys.stdout.write(as_json.render(made) if output is DataFormat.json else as_text.render(made))
    if html is not None:
        from netlab.report import matrix_html as as_html

        _write(html, as_html.render(made).encode())
    sys.exit(made.exit_code())


def _check_report_options(output: DataFormat, *, ladder: bool) -> None:
    if ladder and output is DataFormat.json:
        raise UsageError("--ladder is text, and --format json is not")


def _check_places(*files: Path | None) -> None:
    from netlab.files import check_place

    for file in files:
        if file is not None:
            check_place(file)


def _write(file: Path, data: bytes) -> None:
    from netlab.files import write_whole

    write_whole(file, data)
    _say(f"wrote {file}")


def _play(
    topology: str | None, experiment: str | None, settings: tuple[tuple[str, str], ...], name: str | None
) -> "Play":
    """The experiment to play: of a file, or of a lab that is up."""
    from netlab.experiments import catalogue
    from netlab.state import choose, labs, run_directory
    from netlab.topology import read_text

    there = labs(run_directory())
    is_lab = topology in there and not Path(topology or "").exists()
    no_file = topology is None and not any(Path(file).exists() for file in ("topology.yaml", "topology.yml"))
    if is_lab or (no_file and there):
        directory, state = _lab(choose(run_directory(), topology))
        text, file = directory.topology_text(), state.file or "-"
        play = catalogue.choose(
            catalogue.plays(text, file, (*state.settings, *settings), state.lab), experiment, state.lab
        )
        if play.file != file:
            raise UsageError(
                f"{play.experiment.name} is played in another lab than {state.lab}: in that of {play.file}",
                "`netlab run` with the experiment's own file plays it there",
            )
        return play
    file = _file(topology)
    return catalogue.choose(catalogue.plays(read_text(file), file, settings, name), experiment, file)


_TOLD = 5
"""How many disagreements are told in full."""


def _run(
    directory: "LabDirectory",
    wanted: "Wanted",
    play: "Play",
    capabilities: tuple[str, ...],
    trials: int,
    *,
    keep_frames: bool,
    ask: bool,
) -> tuple["Result", "Recording", "Facts | None"]:
    """Play the experiment in the lab, which is up; with `ask`, also ask the kernel what a bundle tells of it."""
    from netlab import playing
    from netlab.held import hold

    namespaces = playing.namespaces(directory)
    progress = _Progress(f"{wanted.topology.name}, trials", trials)
    try:
        result, recording = playing.play(
            namespaces,
            wanted,
            play,
            capabilities,
            trials,
            lambda count, _total: progress.at(count),
            keep_frames=keep_frames,
        )
    finally:
        progress.end()
    result, disagreements = hold(result, recording)
    for sentence in disagreements[:_TOLD]:
        _say(f"netlab: model and kernel disagree: {sentence}")
    if len(disagreements) > _TOLD:
        _say(f"netlab: model and kernel disagree about {len(disagreements) - _TOLD:,} more packets")
    if not ask:
        return result, recording, None
    from netlab import facts

    return result, recording, facts.gather(namespaces, [netns.name for netns in wanted.topology.namespaces])


def _report(result: "Result", recording: "Recording", output: DataFormat, *, ladder: bool, html: Path | None) -> None:
    """What a run showed, on stdout; the pictures of its recording where they are wanted."""
    from netlab.report import json as as_json
    from netlab.report import text as as_text

    sys.stdout.write(as_json.render(result) if output is DataFormat.json else as_text.render(result))
    if ladder and result.trials:
        from netlab.report import ladder as as_ladder
        from netlab.report.sequence import build as build_ladder
        from netlab.timeline import build as build_timeline

        _, trial = as_text.shown(result)
        drawn = build_ladder(build_timeline(recording), trial.flow, trial)
        sys.stdout.write("\n" + as_ladder.render(drawn))
    if html is not None:
        from netlab.report import html as as_html

        _write(html, as_html.render(result, recording).encode())


@app.command()
def report(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `netlab run --bundle FILE` wrote.")],
    output: Annotated[DataFormat, typer.Option("--format", help="text or json.")] = DataFormat.text,
    ladder: LadderOption = False,
    html: HtmlOption = None,
) -> None:
    """Say again what a run showed, from its bundle: on any machine, without privilege, without its lab."""
    from netlab.bundle import read

    _check_report_options(output, ladder=ladder)
    _check_places(html)
    bundle = read(file)
    _report(bundle.result, bundle.recording, output, ladder=ladder, html=html)


@app.command()
def capture(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME[:IFNAME]]…",
            help="Namespaces, or single interfaces of them; left out: all.",
            autocompletion=_namespaces,
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
        typer.Option("--count", "-c", min=1, help="End after so many packets."),
    ] = None,
    for_s: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", min=0, help="End after so many seconds."),
    ] = None,
    snaplen: Annotated[
        int | None,
        typer.Option("--snaplen", "-s", metavar="BYTES", min=1, max=262144, help="Keep so much of each packet."),
    ] = None,
    lab: LabOption = None,
) -> None:
    """Write the packets of several namespaces into one pcapng file, until Ctrl-C."""
    from netlab import capture as captures
    from netlab.lab import as_it_is, open_lab

    if file == "-" and sys.stdout.isatty():
        raise UsageError("pcapng on a terminal helps nobody", "-w FILE, or a pipe: netlab capture | tshark -r -")
    directory, state = _lab(lab)
    roles = {netns.name: netns.role.value for netns in as_it_is(directory, state).topology.namespaces}
    namespaces = open_lab(state)
    tapped = captures.taps(namespaces, roles, names or [])
    snaplen_bytes = captures.WHOLE_FRAME_BYTES if snaplen is None else snaplen
    program = None
    if expression:
        from netlab.libpcap import compile_filter

        # Where there is no network: a name in the expression isn't asked for outside.
        with namespaces.scratch():
            program = compile_filter(expression, snaplen_bytes)
    with captures.Capture(
        namespaces, tapped, expression=expression, program=program, snaplen_bytes=snaplen_bytes
    ) as taking:
        with interrupts.as_news() as stop, captures.sink(file) as out:
            _say(f"capturing on {', '.join(f'{tap.netns}/{tap.ifname}' for tap in tapped)}")
            try:
                taking.run(out, stop, count=count, for_s=for_s, note=_say)
            except BrokenPipeError:  # whoever read it has seen enough
                sys.exit(128 + signal.SIGPIPE)
        captured = sum(interface.captured for interface in taking.interfaces)
        dropped = sum(interface.dropped for interface in taking.interfaces)
        _say(f"{_count(captured, 'packet')} captured, {dropped} dropped")
        for interface in taking.interfaces:
            if interface.dropped:
                _say(f"  {interface.tap.netns}/{interface.tap.ifname}: {interface.dropped} dropped")


@app.command()
def watch(
    lab: LabArgument = None,
    netns: Annotated[
        list[str] | None,
        typer.Option(
            "--netns", metavar="NAME", help="A namespace to watch; left out: all.", autocompletion=_namespaces
        ),
    ] = None,
    for_s: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", min=0, help="End after so many seconds."),
    ] = None,
) -> None:
    """Show what happens in a lab that is up, an event a line, until Ctrl-C."""
    import select

    from netlab import recorder
    from netlab.lab import as_it_is, open_lab
    from netlab.report.live import line

    directory, state = _lab(lab)
    topology = as_it_is(directory, state).topology
    for name in netns or []:
        _check_netns(state, name)
    namespaces = open_lab(state)
    started_ns = time.time_ns()

    def show(events: "Sequence[Event]") -> None:
        if not events:
            _say(f"watching {', '.join(netns or [each.name for each in topology.namespaces])}")
        for event in events:
            print(line(event, started_ns), flush=True)

    with interrupts.as_news() as news:
        seen = recorder.record(
            topology,
            namespaces,
            recorder.Source(),
            netns,
            for_s,
            stop=lambda: bool(select.select([news], [], [], 0)[0]),
            on_events=show,
            keep_events=False,
        )
    lost = [f"{_count(number, 'event')} lost by {observer}" for observer, number in seen.lost if number]
    for line_ in (*lost, *(f"not seen: {what}" for what in seen.blind)):
        _say(line_)
    if not lost:
        _say("no event lost")


@app.command()
def explain(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[LAB|FILE]", help="A lab that is up, or a bundle; left out: the only lab."),
    ] = None,
    flow: Annotated[
        str | None,
        typer.Option("--flow", metavar="ADDRESS:PORT", help="The client's end; left out: what was reset first."),
    ] = None,
    for_s: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", min=0, help="Watch a lab for so long at most; left out: 30."),
    ] = None,
    output: Annotated[DataFormat, typer.Option("--format", help="text or json.")] = DataFormat.text,
) -> None:
    """Say why a connection was reset: the chain of causes, packet by packet. Watches a lab until one is reset."""
    from netlab import explain as explaining
    from netlab.timeline import build

    if source is not None and Path(source).is_file():
        if for_s is not None:
            raise UsageError("--for is how long to watch a lab, and this is a file")
        recording = _recording(source)
    else:
        recording = _watch_for_reset(source, flow, _EXPLAIN_S if for_s is None else for_s)
    story = explaining.explain(build(recording), flow)
    sys.stdout.write(explaining.as_json(story) if output is DataFormat.json else explaining.render(story))


_EXPLAIN_S = 30.0
_AFTER_RESET_S = 1.0
"""How long to go on after a RST: the other end learns of it only when it next says something."""


def _recording(file: str) -> "Recording":
    """The recording in a bundle, or in a file of its own as JSON; UsageError where there is none."""
    import json

    from netlab import bundle
    from netlab.recording import Recording, from_json

    if bundle.is_bundle(Path(file)):
        return bundle.read(Path(file)).recording
    try:
        recording = from_json(json.loads(Path(file).read_text()))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{file} is neither a bundle nor a recording", "`netlab run --bundle FILE` writes a bundle"
        ) from error
    if not isinstance(recording, Recording):
        raise UsageError(f"{file} is no recording, but a {type(recording).__name__}")
    return recording


def _watch_for_reset(lab: str | None, flow: str | None, seconds: float) -> "Recording":
    """What happens in a lab until a connection (the flow's, if one is named) is reset, time is up, or Ctrl-C."""
    import select

    from netlab import recorder
    from netlab.events import RST, Packet
    from netlab.lab import as_it_is, open_lab

    directory, state = _lab(lab)
    wanted = as_it_is(directory, state)
    namespaces = open_lab(state)
    until = float("inf")

    def look(events: "Sequence[Event]") -> None:
        nonlocal until
        if not events:
            whose = f"{flow} is reset" if flow else "a connection is reset"
            _say(f"watching {state.lab} until {whose}, for {seconds:g} s at most; Ctrl-C ends it")
        for event in events:
            if isinstance(event, Packet) and event.segment.flags & RST and until == float("inf"):
                segment = event.segment
                own = (f"{segment.src}:{segment.sport}", f"{segment.dst}:{segment.dport}")
                if flow is None or flow.replace("[", "").replace("]", "") in own:
                    until = time.monotonic() + _AFTER_RESET_S

    with interrupts.as_news() as news:
        return recorder.record(
            wanted.topology,
            namespaces,
            recorder.Source(wanted.text, wanted.settings, wanted.fixes),
            seconds=seconds,
            stop=lambda: time.monotonic() > until or bool(select.select([news], [], [], 0)[0]),
            on_events=look,
        )


@fix_app.command("list")
def fix_list(
    topology: Annotated[
        str | None,
        typer.Argument(metavar="[TOPOLOGY|LAB]", help="A YAML file, or a lab that is up; left out: all labs."),
    ] = None,
) -> None:
    """The mitigations by name, the built-in ones and a topology's own, and whether a lab that is up has them."""
    from netlab.fixes import FIXES
    from netlab.lab import as_it_is
    from netlab.state import labs, run_directory

    there = labs(run_directory())
    if topology is None or (topology in there and not Path(topology).exists()):
        found = [_lab(name) for name in there if topology in (None, name)]
        wanted = [as_it_is(directory, state) for directory, state in found]
    else:
        wanted = [_wanted(topology, (), None, None)]
    rows = [(fix.name, fix.summary, wanted) for fix in FIXES.values()]
    rows += [(*fix, [one]) for one in wanted for fix in one.topology.fixes]
    width = max(len(name) for name, _, _ in rows)
    for name, summary, known in rows:
        notes = [] if name in FIXES or topology is not None else [f"of {known[0].topology.name}"]
        applied = [one.topology.name for one in known if name in one.fixes]
        notes += [f"applied: {','.join(applied)}"] if applied else []
        if topology is not None and name in FIXES and (why := FIXES[name].lacks(known[0].topology)) is not None:
            notes.append(f"not here: {why[0]}")
        noted = f"  [{'; '.join(notes)}]" if notes else ""
        print(f"{name:{width}} {summary}{noted}")


@fix_app.command("apply")
def fix_apply(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME…", help="Mitigations, as `netlab fix list` names them.", autocompletion=_fixes),
    ],
    lab: LabOption = None,
) -> None:
    """Put mitigations into a lab that is up."""
    _change_fixes(lab, names, lambda fixes: (*fixes, *(name for name in names if name not in fixes)))


@fix_app.command("revert")
def fix_revert(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME…]", help="Left out: all of them.", autocompletion=_fixes),
    ] = None,
    lab: LabOption = None,
) -> None:
    """Take mitigations out of a lab that is up."""
    _change_fixes(lab, names or [], lambda fixes: tuple(name for name in fixes if names and name not in names))


def _change_fixes(
    lab_name: str | None, names: "Sequence[str]", change: "Callable[[tuple[str, ...]], tuple[str, ...]]"
) -> None:
    from netlab import lab
    from netlab.fixes import check_name

    directory, state = _lab(lab_name)
    as_was = lab.as_it_is(directory, state)
    for name in names:
        check_name(as_was.topology, name)
    wanted = lab.with_only_fixes(as_was, change(state.fixes))
    interrupts.stop_on_signals()
    outcome = lab.up(directory, wanted, rootless=None)
    _say(_summary(wanted, outcome, verbose=False))


# --- this machine ----------------------------------------------------------------------------------------------------


@app.command()
def doctor(
    output: Annotated[DataFormat, typer.Option("--format", help="text or json.")] = DataFormat.text,
) -> None:
    """What this kernel and this user can do, and what to do about the rest."""
    from netlab import doctor as checkup

    found = checkup.checks()
    sys.stdout.write(checkup.render_json(found) if output is DataFormat.json else checkup.render(found))
    sys.exit(checkup.exit_code(found))
