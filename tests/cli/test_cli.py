"""The command line where no lab is needed: what goes to stdout, what to stderr, exit codes, help, and what is imported.

Labs that are up are the subject of other files.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import jsonschema
import pytest
from command import Netlab
from places import TOPOLOGIES
from states import lab_directory
from terminals import terminal_of
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from netlab import __version__
from netlab.cli.app import COMMANDS as FILES
from netlab.cli.app import SECTIONS, app
from netlab.cli.messages import bar
from netlab.experiments.schema import schema
from netlab.kubeproxy import ruleset
from netlab.kubeproxy.fixes import FIXES
from netlab.lab import plan
from netlab.topology import read

CLUSTER = TOPOLOGIES / "cluster.yaml"
FLAGSHIP = TOPOLOGIES / "kube-proxy-reset.yaml"

Said = tuple[int, str, str]


OWN_FIX = "namespaces: {a: {}}\nfixes: {best: {summary: no SACK, set: {namespaces.a.sysctls.net.ipv4.tcp_sack: 0}}}\n"


def said(done: subprocess.CompletedProcess[str]) -> Said:
    """Exit code, stdout and stderr."""
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A directory with a small topology.yaml."""
    (tmp_path / "topology.yaml").write_text("name: small\nvars: {mtu: 1400}\nnamespaces: {a: {}}\n")
    return tmp_path


# --- help ------------------------------------------------------------------------------------------------------------


def commands(command: object, *way: str) -> Iterator[tuple[tuple[str, ...], TyperCommand | TyperGroup]]:
    """Every command below one, with the words that call it."""
    assert isinstance(command, TyperCommand | TyperGroup)
    yield way, command
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from commands(inner, *way, name)


PROGRAM = get_command(app())
COMMANDS = dict(commands(PROGRAM))


def test_the_commands_are_these() -> None:
    assert {" ".join(way) for way in COMMANDS} >= {
        *("", "up", "down", "status", "exec", "shell", "plan", "lint", "schema", "rules", "run", "doctor"),
        *("fix", "fix list", "fix apply", "fix revert"),
    }


def test_each_command_is_in_the_file_that_is_said_to_have_it() -> None:
    assert isinstance(PROGRAM, TyperGroup)
    assert set(PROGRAM.commands) == set(FILES)
    for name in FILES:
        alone = get_command(app(name))
        assert isinstance(alone, TyperGroup)
        assert name in alone.commands


@pytest.mark.parametrize("way", COMMANDS, ids=" ".join)
def test_every_command_option_and_argument_has_a_line_of_help(way: tuple[str, ...]) -> None:
    command = COMMANDS[way]
    assert command.help
    for parameter in command.params:
        assert isinstance(parameter, TyperOption | TyperArgument)
        assert parameter.help, f"{' '.join(way)} {parameter.name}"


def test_help_of_the_program(netlab: Netlab) -> None:
    code, stdout, stderr = said(netlab("--help"))
    assert (code, stderr) == (0, "")
    assert stdout.startswith("Usage: netlab [OPTIONS] COMMAND [ARGS]...\n")
    assert said(netlab("-h")) == (0, stdout, "")
    code, alone, stderr = said(netlab())
    assert (code, alone + stderr) == (2, stdout)


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("way", [(), ("fix",)], ids=" ".join)
def test_no_summary_in_a_help_is_cut(netlab: Netlab, columns: int, way: tuple[str, ...]) -> None:
    told = terminal_of(netlab.argv(*way, "--help"), netlab.environment({"TERM": "xterm-256color"}), columns)
    assert max(map(len, told.splitlines())) <= columns
    words = " ".join(told.split())
    group = COMMANDS[way]
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        assert f" {name} {command.get_short_help_str(1000)}" in words
    assert "..." not in words.replace("COMMAND [ARGS]...", "")


def test_every_command_is_in_a_section_of_the_help(netlab: Netlab) -> None:
    lines = netlab("--help").stdout.splitlines()
    assert [line.split()[0] for line in lines if re.match(r"  [a-z]+  ", line)] == list(FILES)
    assert [f"{heading}:" in lines for heading in SECTIONS] == [True] * len(SECTIONS)


def test_the_list_of_commands_needs_none_of_their_files(netlab: Netlab) -> None:
    files = {f"netlab.cli.{entry.file}" for entry in FILES.values()}
    assert modules(netlab, "--help") & files == set()
    assert isinstance(PROGRAM, TyperGroup)
    summaries = {name: command.get_short_help_str(1000) for name, command in PROGRAM.commands.items()}
    assert {name: entry.summary for name, entry in FILES.items()} == summaries
    whole = get_command(app())
    assert isinstance(whole, TyperGroup)
    context = whole.make_context("netlab", ["up"], resilient_parsing=True)
    assert netlab("--help").stdout == f"{whole.get_help(context)}\n"


def test_the_version(netlab: Netlab) -> None:
    wanted = f"netlab {__version__} (netns-lab)\n"
    assert said(netlab("--version")) == said(netlab("-V")) == (0, wanted, "")


@pytest.mark.parametrize("way", [way for way in COMMANDS if way != ("help",)], ids=" ".join)
def test_help_shows_what_the_option_does(netlab: Netlab, way: tuple[str, ...]) -> None:
    assert said(netlab("help", *way)) == said(netlab(*way, "--help"))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["fx"], "did you mean 'fix'?"),
        (["fix", "appply"], "did you mean 'apply'?"),
        (["up", "down"], "`netlab help` lists them"),
    ],
)
def test_help_of_no_command(netlab: Netlab, words: list[str], hint: str) -> None:
    wanted = f"netlab: there is no command '{' '.join(words)}'\n  hint: {hint}\n"
    assert said(netlab("help", *words)) == (2, "", wanted)


def test_help_of_a_command(netlab: Netlab) -> None:
    assert said(netlab("lint", "--help", env={"COLUMNS": "80"})) == (
        0,
        dedent("""\
            Usage: netlab lint [OPTIONS] [TOPOLOGY]

              Check a topology or an experiment.

              A topology is checked with its experiments and fixes. Each problem is told
              with its place and a hint.

            Arguments:
              [TOPOLOGY]  A YAML file, or - for stdin; left out: topology.yaml here.

            Options:
              --set PATH=VALUE      Change a value of the topology: vars.window=1048576.
              --name NAME           Another name for the lab.
              --format <text|json>  text or json.  [default: text]
              -h, --help            Show this message and exit.
            """),
        "",
    )


def test_an_unknown_option_or_command_is_bad_usage(netlab: Netlab) -> None:
    assert said(netlab("lint", "--nope")) == (
        2,
        "",
        "Usage: netlab lint [OPTIONS] [TOPOLOGY]\nTry 'netlab lint -h' for help.\n\n"
        "Error: No such option: --nope (Possible options: --name)\n",
    )
    code, stdout, stderr = said(netlab("nope"))
    assert (code, stdout) == (2, "")
    assert "No such command 'nope'" in stderr


def test_an_unknown_format_is_bad_usage(netlab: Netlab, lab: Path) -> None:
    code, stdout, stderr = said(netlab("plan", "--format", "yaml", cwd=lab))
    assert (code, stdout) == (2, "")
    assert "'yaml' is not one of 'text', 'json', 'shell'" in stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_asks_netlab(netlab: Netlab, shell: str) -> None:
    code, stdout, stderr = said(netlab("--show-completion", shell))
    assert (code, stderr) == (0, "")
    assert "_NETLAB_COMPLETE" in stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("netlab fix apply be", "be-liberal\n"),
        ("netlab up own.yaml --fix be", "be-liberal\nbest\n"),
        ("netlab run own.yaml --fix be", "be-liberal\nbest\n"),
        ("netlab up --fix bes", "\n"),
        ("netlab li", "lint\n"),
        ("netlab help s", "status\nshell\nschema\n"),
        ("netlab help fix a", "apply\n"),
        ("netlab down ", "one\ntwo\n"),
        ("netlab exec cl", "\n"),
    ],
)
def test_completion_offers_what_there_is(netlab: Netlab, words: str, offered: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        lab_directory(tmp_path / "labs", name)
    (tmp_path / "own.yaml").write_text(OWN_FIX)
    env = {"_NETLAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    code, stdout, _ = said(netlab(env={**env, "NETLAB_LAB_RUNDIR": str(tmp_path / "labs")}, cwd=tmp_path))
    assert (code, stdout) == (0, offered)


# --- topologies: found, read, complained about -----------------------------------------------------------------------


def test_lint_of_a_sound_topology_says_so_on_stderr(netlab: Netlab, lab: Path) -> None:
    assert said(netlab("lint", cwd=lab)) == (0, "", "topology.yaml: lab small is sound\n")
    assert said(netlab("lint", "--name", "other", cwd=lab)) == (0, "", "topology.yaml: lab other is sound\n")
    assert said(netlab("lint", "-", stdin="namespaces: {a: {}}")) == (0, "", "-: lab lab is sound\n")


def test_without_a_file_topology_yml_is_read_too(netlab: Netlab, tmp_path: Path) -> None:
    (tmp_path / "topology.yml").write_text("namespaces: {a: {}}\n")
    assert said(netlab("lint", cwd=tmp_path)) == (0, "", "topology.yml: lab topology is sound\n")


@pytest.mark.parametrize("command", ["lint", "plan", "up", "run"])
def test_without_a_topology_the_error_says_what_is_looked_for(netlab: Netlab, tmp_path: Path, command: str) -> None:
    assert said(netlab(command, cwd=tmp_path)) == (
        2,
        "",
        "netlab: there is no topology.yaml here\n"
        "  hint: name a file, - for stdin, or one of those that `netlab examples` lists\n",
    )


@pytest.mark.parametrize("command", ["lint", "plan", "up", "run"])
def test_every_problem_is_told_and_nothing_is_done(netlab: Netlab, tmp_path: Path, command: str) -> None:
    (tmp_path / "bad.yaml").write_text(
        dedent("""\
            namespaces: {client: {rol: pod}}
            links:
              - ends: ["client:eth0", "sever:eth0"]
            """)
    )
    assert said(netlab(command, "bad.yaml", cwd=tmp_path)) == (
        2,
        "",
        dedent("""\
            bad.yaml:1:23: namespaces.client.rol: unknown key 'rol'
              hint: did you mean 'role'?
            bad.yaml:3:27: links[0].ends[1]: no namespace is called 'sever'
              hint: known: client
            """),
    )
    assert not netlab.rundir.exists()


def test_a_file_that_is_not_there(netlab: Netlab, tmp_path: Path) -> None:
    assert said(netlab("plan", "nowhere.yaml", cwd=tmp_path)) == (
        2,
        "",
        "netlab: nowhere.yaml: there is no such file\n  hint: name a topology file, or - for stdin\n",
    )


def test_set_changes_a_value_and_needs_an_equals_sign(netlab: Netlab, lab: Path) -> None:
    wanted = "netlab: --set vars.mtu: not of the form PATH=VALUE\n  hint: for instance --set vars.window=4096\n"
    assert said(netlab("lint", "--set", "vars.mtu", cwd=lab)) == (2, "", wanted)
    assert said(netlab("lint", "--set", "vars.mtu=9000", cwd=lab)) == (0, "", "topology.yaml: lab small is sound\n")
    assert said(netlab("lint", "--set", "vars.mut=9000", cwd=lab)) == (
        2,
        "",
        "--set: vars.mut: there is no 'mut'\n  hint: did you mean 'mtu'?\n",
    )


# --- pure looks ------------------------------------------------------------------------------------------------------


def test_plan_in_each_format(netlab: Netlab) -> None:
    _, topology = read(str(FLAGSHIP))
    steps = plan.up(topology)
    assert said(netlab("plan", FLAGSHIP)) == (0, plan.as_text(steps, "kube-proxy-reset-"), "")
    assert said(netlab("plan", FLAGSHIP, "--format", "json")) == (0, plan.as_json(steps, topology), "")
    assert said(netlab("plan", FLAGSHIP, "--format", "shell")) == (0, plan.as_shell(steps, topology), "")


def test_up_dry_run_prints_the_plan_and_does_nothing(netlab: Netlab) -> None:
    assert said(netlab("up", "--dry-run", FLAGSHIP)) == said(netlab("plan", FLAGSHIP))
    assert not netlab.rundir.exists()


def test_plan_with_a_fix(netlab: Netlab) -> None:
    code, stdout, stderr = said(netlab("plan", FLAGSHIP, "--fix", "be-liberal", "--fix", "be-liberal"))
    assert (code, stderr) == (0, "")
    assert stdout.count("sysctl net.netfilter.nf_conntrack_tcp_be_liberal = 1") == 1
    assert said(netlab("plan", FLAGSHIP, "--fix", "be-librel")) == (
        2,
        "",
        f"netlab: there is no fix 'be-librel'\n  hint: did you mean 'be-liberal'? the fixes are: {', '.join(FIXES)}\n",
    )


def test_schema_is_the_json_schema_that_the_shipped_topologies_name(netlab: Netlab) -> None:
    code, stdout, stderr = said(netlab("schema"))
    assert (code, stderr) == (0, "")
    told = json.loads(stdout)
    assert told == schema()
    jsonschema.Draft202012Validator.check_schema(told)


def test_rules_of_a_node_in_both_formats(netlab: Netlab) -> None:
    rules = ruleset(read(str(CLUSTER))[1], "node-1")
    assert rules is not None
    assert said(netlab("rules", "node-1", CLUSTER)) == (0, rules.nft(), "")
    assert said(netlab("rules", "node-1", CLUSTER, "--format", "iptables-save")) == (0, rules.iptables_save(), "")


def test_rules_of_the_nftables_mode_are_no_iptables_rules(netlab: Netlab) -> None:
    mode = "kube_proxy.mode=nftables"
    rules = ruleset(read(str(CLUSTER), [("kube_proxy.mode", "nftables")])[1], "node-1")
    assert rules is not None
    assert said(netlab("rules", "node-1", CLUSTER, "--set", mode)) == (0, rules.nft(), "")
    assert said(netlab("rules", "node-1", CLUSTER, "--set", mode, "--format", "iptables-save")) == (
        2,
        "",
        "netlab: the rules of kube-proxy's nftables mode can't be said in iptables' words\n  hint: --format nft\n",
    )


def test_rules_of_what_gets_none(netlab: Netlab, lab: Path) -> None:
    wanted = "netlab: client gets no rules\n  hint: these do: node-1, node-2\n"
    assert said(netlab("rules", "client", CLUSTER)) == (2, "", wanted)
    wanted = "netlab: a gets no rules\n  hint: no node of this topology does\n"
    assert said(netlab("rules", "a", cwd=lab)) == (2, "", wanted)


def test_the_fixes_are_listed(netlab: Netlab) -> None:
    code, stdout, stderr = said(netlab("fix", "list"))
    assert (code, stderr) == (0, "")
    assert [line.split()[0] for line in stdout.splitlines()] == list(FIXES)


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_on_a_terminal_the_list_of_fixes_is_as_wide(netlab: Netlab, columns: int) -> None:
    told = terminal_of(netlab.argv("fix", "list"), netlab.environment({"NO_COLOR": "1"}), columns)
    words = " ".join(told.split())
    assert all(f"{fix.name} {fix.summary}" in words for fix in FIXES.values())  # no word is broken
    longest = max(len(word) for fix in FIXES.values() for word in fix.summary.split())
    assert max(map(len, told.splitlines())) <= max(columns, max(map(len, FIXES)) + 1 + longest)


def test_a_topologys_own_fixes_are_listed_with_what_it_has_nothing_for(netlab: Netlab, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN_FIX)
    code, stdout, stderr = said(netlab("fix", "list", "own.yaml", cwd=tmp_path))
    assert (code, stderr) == (0, "")
    *builtin, own = stdout.splitlines()
    width = max(map(len, FIXES))
    assert own == f"{'best':{width}} no SACK"
    assert builtin == [
        f"{fix.name:{width}} {fix.summary}  [not here: no node of lab 'own' runs kube-proxy]" for fix in FIXES.values()
    ]


def test_a_plan_with_a_topologys_own_fix(netlab: Netlab, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN_FIX)
    code, stdout, stderr = said(netlab("plan", "own.yaml", "--fix", "best", cwd=tmp_path))
    assert (code, stderr) == (0, "")
    assert "a: sysctl net.ipv4.tcp_sack = 0\n" in stdout
    assert said(netlab("lint", "own.yaml", cwd=tmp_path)) == (
        0,
        "",
        "own.yaml: lab own is sound, with 1 fix of its own\n",
    )
    assert said(netlab("plan", "own.yaml", "--fix", "be-liberal", cwd=tmp_path)) == (
        2,
        "",
        "netlab: the fix 'be-liberal' has nothing to work on: no node of lab 'own' runs kube-proxy\n"
        "  hint: name the nodes that get the rules in the topology's kube_proxy\n",
    )


# --- no lab ----------------------------------------------------------------------------------------------------------

NO_LAB = "netlab: no lab is up\n  hint: `netlab up topology.yaml` builds one\n"
NO_SUCH_LAB = "netlab: no lab is called x\n  hint: no lab is up: `netlab up` builds one\n"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["status"], (0, "no lab is up\n", "")),
        (["status", "--format", "json"], (0, '{\n  "labs": []\n}\n', "")),
        (["status", "x"], (2, "", NO_SUCH_LAB)),
        (["down"], (0, "", "no lab is up: nothing to do\n")),
        (["down", "x"], (0, "", "no lab is called x: nothing to do\n")),
        (
            ["down", "x.yaml"],
            (
                2,
                "",
                "netlab: x.yaml: there is no such file\n  hint: name a lab, or the file of its topology\n",
            ),
        ),
        (["down", "-q", "x"], (0, "", "")),
        (["down", "--all"], (0, "", "no lab is up: nothing to do\n")),
        (["down", "--all", "x"], (2, "", "netlab: --all and a lab's name don't go together\n")),
        (["exec", "client", "--", "true"], (2, "", NO_LAB)),
        (["exec", "--lab", "x", "client", "true"], (2, "", NO_SUCH_LAB)),
        (
            ["exec", "client"],
            (
                2,
                "",
                "netlab: there is no command to run\n"
                "  hint: `netlab exec client -- COMMAND…`, or `netlab shell client`\n",
            ),
        ),
        (["shell", "client"], (2, "", NO_LAB)),
        (["fix", "apply", "drop-invalid"], (2, "", NO_LAB)),
        (["fix", "revert"], (2, "", NO_LAB)),
        (
            ["fix", "list", "x"],
            (
                2,
                "",
                "netlab: x: there is no such file\n  hint: name a file, or one of those that `netlab examples` lists\n",
            ),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_with_no_lab(netlab: Netlab, arguments: list[str], wanted: Said) -> None:
    assert said(netlab(*arguments)) == wanted
    assert not netlab.rundir.exists()


def test_run_needs_an_experiment(netlab: Netlab) -> None:
    assert said(netlab("run", CLUSTER)) == (
        2,
        "",
        f"netlab: {CLUSTER} has no experiment\n  hint: name an experiment's file, or add `experiments:` to it\n",
    )


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_reader_that_stops_early_hears_no_complaint(netlab: Netlab) -> None:
    reading, writing = os.pipe()
    argv = netlab.argv("plan", FLAGSHIP)
    process = subprocess.Popen(argv, stdout=writing, stderr=subprocess.PIPE, env=netlab.environment())
    os.close(reading)
    os.close(writing)
    _, complaint = process.communicate(timeout=60)
    assert complaint == b""
    assert process.returncode == 141


def test_a_full_disk_is_an_error_with_a_message(netlab: Netlab) -> None:
    with Path("/dev/full").open("w") as full:
        argv = netlab.argv("plan", FLAGSHIP)
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, env=netlab.environment())
    assert (done.returncode, done.stderr) == (1, "netlab: stdout: No space left on device\n")


def test_a_directory_that_is_gone_is_an_error_with_a_message(netlab: Netlab, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    argv = ["sh", "-c", 'cd gone && rmdir ../gone && exec "$@"', "sh", *netlab.argv("plan", "../topology.yaml")]
    shutil.copy(FLAGSHIP, tmp_path / "topology.yaml")
    done = subprocess.run(argv, capture_output=True, text=True, env=netlab.environment(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "netlab: system error: No such file or directory\n"
        "  hint: the current directory has been removed: cd to another\n",
    )


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_do_no_harm(netlab: Netlab, lab: Path, closed: str) -> None:
    argv = ["sh", "-c", f'exec "$@" {closed}', "sh", *netlab.argv("plan")]
    done = subprocess.run(argv, capture_output=True, text=True, env=netlab.environment(), cwd=lab)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("" if "1>&-" in closed else netlab("plan", cwd=lab).stdout)


def test_nothing_is_coloured_into_a_pipe_even_where_the_environment_asks(netlab: Netlab, lab: Path) -> None:
    env = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "CLICOLOR_FORCE": "1"}
    for arguments in (["plan"], ["lint", "--nope"], ["status"], ["--help"], ["plan", "nowhere.yaml"]):
        done = netlab(*arguments, cwd=lab, env=env)
        assert "\033" not in done.stdout + done.stderr, arguments


def test_errors_on_a_terminal_are_plain_text_too(netlab: Netlab, lab: Path) -> None:
    ours, theirs = pty.openpty()
    argv, env = netlab.argv("plan", "nowhere.yaml"), netlab.environment({"NO_COLOR": "1"})
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, cwd=lab, env=env)
    os.close(theirs)
    told = b""
    with suppress(OSError):  # EIO: the last one has closed the terminal
        while data := os.read(ours, 4096):
            told += data
    assert process.wait(60) == 2
    os.close(ours)
    assert told.decode() == (
        "netlab: nowhere.yaml: there is no such file\r\n  hint: name a topology file, or - for stdin\r\n"
    )


# --- what is imported ------------------------------------------------------------------------------------------------


def modules(netlab: Netlab, *arguments: str | Path) -> set[str]:
    """The modules that a command imports, by their whole names."""
    python, *rest = netlab.argv(*arguments)
    argv = [python, "-X", "importtime", *rest]
    done = subprocess.run(argv, capture_output=True, text=True, env=netlab.environment(), timeout=60)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE))


def imported(netlab: Netlab, *arguments: str | Path) -> set[str]:
    """The top-level packages that a command imports."""
    return {module.split(".")[0] for module in modules(netlab, *arguments)}


def test_lint_imports_nothing_of_the_kernels(netlab: Netlab) -> None:
    found = imported(netlab, "lint", CLUSTER)
    assert {"typer", "yaml", "netlab"} <= found
    assert found & {"pyroute2", "nftables", "rich", "asyncio", "jsonschema", "pydantic"} == set()


EFFECTS = (
    "lab.apply",
    "lab.netns",
    "lab.holder",
    "lab.lifecycle",
    "observe.recorder",
    "capabilities.probes",
    "experiments.trials",
    "experiments.context",
)


@pytest.mark.parametrize(
    ("arguments", "pure"),
    [
        (("schema", "experiment"), "netlab.experiments.language"),
        (("plan", FLAGSHIP), "netlab.lab.plan"),
        (("rules", "client-node", FLAGSHIP), "netlab.kubeproxy.rules"),
    ],
    ids=["schema", "plan", "rules"],
)
def test_a_pure_look_imports_no_effect_room(netlab: Netlab, arguments: tuple[str | Path, ...], pure: str) -> None:
    found = modules(netlab, *arguments)
    assert pure in found
    assert found & {f"netlab.{name}" for name in EFFECTS} == set()


def test_progress_is_drawn() -> None:
    assert [bar(done, 90) for done in (0, 25, 89, 90)] == [
        "[--------------------]",
        "[#####---------------]",
        "[###################-]",
        "[####################]",
    ]
