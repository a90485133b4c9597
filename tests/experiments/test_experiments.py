"""Experiments as documents: what they may say, what a wrong one is told, and one of a user's own on the kernel."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from textwrap import dedent
from unittest.mock import Mock

import host
import jsonschema
import labs
import pytest
import skips
import vocabulary
import yaml
from command import Netlab
from places import TOPOLOGIES

from netlab.analysis.result import Outcome
from netlab.errors import NetlabError
from netlab.experiments import catalogue, schema
from netlab.experiments.connection import End
from netlab.experiments.experiment import Action, Expectation, Experiment, Step, ToService

DOCUMENTS = sorted((TOPOLOGIES / "experiments").glob("*.yaml"))

OWN = """\
claim: A reader that pauses twice gets every byte.
topology: {topology}
client: client
service: web
payload_bytes: 200000
vars:
  part: 20000
steps:
  - connect:
    observe: {{entry: {{in: client-node, change: update, tcp_state: ESTABLISHED}}}}
  - stop-reading: client
  - send: {{from: server, bytes: "${{part}}"}}
    observe:
      - socket: {{of: server, quiet: true}}
      - packet: {{in: client, direction: in, leg: vip-to-client, payload: true}}
  - start-reading: client
    observe:
      received: {{by: client, bytes: 20000}}
  - program: {{in: client, command: "getent hosts server"}}
  - sysctl: {{in: client-node, name: net.netfilter.nf_conntrack_tcp_loose, value: 0}}
  - finish:
    observe:
      - packet: {{in: client, leg: endpoint-to-client, count: 0}}
      - invalid: {{in: client-node, reason: "over the window"}}
expect:
  plain: completed
"""
"""Written from docs/experiments.md alone. Its last observation is one that isn't made: the test takes it out."""


def own(tmp_path: Path, text: str = OWN) -> Path:
    file = tmp_path / "two-pauses.yaml"
    file.write_text(text.format(topology=TOPOLOGIES / "kube-proxy-reset.yaml"))
    return file


def with_step(tmp_path: Path, step: str) -> Path:
    """A document with a step between `connect` and `finish`."""
    file = tmp_path / "one.yaml"
    file.write_text(
        f"claim: It shows.\ntopology: {TOPOLOGIES / 'kube-proxy-reset.yaml'}\nclient: client\nservice: web\n"
        f"steps:\n  - connect\n  - {step}\n  - finish\nexpect: {{plain: completed}}\n"
    )
    return file


# --- documents -------------------------------------------------------------------------------------------------------


def test_the_page_has_the_whole_vocabulary() -> None:
    page = vocabulary.PAGE.read_text()
    assert vocabulary.put(page) == page, "run `python tests/support/vocabulary.py`"


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.stem)
def test_a_shipped_experiment_is_sound(file: Path) -> None:
    (run,) = catalogue.runs(file.read_text(), str(file))
    assert run.experiment.name == file.stem
    assert run.experiment.explanation
    jsonschema.validate(yaml.safe_load(file.read_text()), schema.schema("experiment"))


def test_the_shipped_schemas_are_these() -> None:
    for kind in ("topology", "experiment"):
        assert (TOPOLOGIES / f"{kind}.schema.json").read_text() == schema.text(kind), "scripts/pages writes it anew"


VARIABLES = """\
claim: c.
topology: {topology}
client: "${{who}}"
service: web
vars: {{n: 5, who: client, yes: true, end: completed, seconds: 1.5, flag: RST, verb: connect, link: "server-node:eth0"}}
needs:
set:
payload_bytes: "${{n}}"
timeout_s: "${{seconds}}"
steps:
  - ${{verb}}
  - connect: {{connection: b, source_port: "${{n}}", timeout_s: "${{seconds}}"}}
    observe: {{entry: {{in: client-node, tcp_state: ESTABLISHED}}}}
    within_s: "${{seconds}}"
  - observe: [{{packet: {{in: client, flags: "${{flag}}", payload: "${{yes}}", offset: -5, count: "${{n}}"}}}}, burst]
  - stop-reading: "${{who}}"
  - hold-back: {{link: "${{link}}", from: server}}
  - program: {{in: client, command: [a, 1, true]}}
  - craft-segment: {{from: server, flags: [PSH, ACK], bytes: 0}}
  - finish:
    observe: {{invalid: {{in: client-node, reason: 5}}}}
expect:
  plain: {{htb: completed, otherwise: "${{end}}"}}
  be-liberal+drop-invalid: "${{end}}"
"""


def test_the_schema_takes_what_is_taken(tmp_path: Path) -> None:
    file = own(tmp_path, VARIABLES)
    (run,) = catalogue.runs(file.read_text(), str(file))
    assert run.experiment.steps[0].stimulus == Action("connect", {})
    jsonschema.validate(yaml.safe_load(file.read_text()), schema.schema("experiment"))


def test_a_document_means_this(tmp_path: Path) -> None:
    file = own(tmp_path)
    (run,) = catalogue.runs(
        file.read_text(),
        str(file),
        (("experiment.payload_bytes", "50000"), ("experiment.steps.4.program.timeout_s", "3")),
    )
    send = Action("send", {"from": "server", "bytes": 20000})
    assert run.experiment._replace(steps=run.experiment.steps[2:5]) == Experiment(
        name="two-pauses",
        claim="A reader that pauses twice gets every byte.",
        steps=(
            Step(
                send,
                (
                    Action("socket", {"of": "server", "quiet": True}),
                    Action("packet", {"in": "client", "direction": "in", "leg": "vip-to-client", "payload": True}),
                ),
            ),
            Step(Action("start-reading", {"end": "client"}), (Action("received", {"by": "client", "bytes": 20000}),)),
            Step(Action("program", {"in": "client", "command": ("getent", "hosts", "server"), "timeout_s": 3.0})),
        ),
        client="client",
        target=ToService("web"),
        payload_bytes=50000,
        expect=(("plain", (Expectation(Outcome.COMPLETED),)),),
        topology=str(TOPOLOGIES / "kube-proxy-reset.yaml"),
    )
    assert run.experiment.namespaces() == ("client-node", "client")


def test_an_action_is_told_as_a_document_has_it() -> None:
    arguments = {"in": "client", "to": None, "flags": ("PSH", "ACK"), "wait": False, "bytes": 3}
    told = Action("verb", arguments).describe()
    assert told == "verb: {in: client, to: default, flags: [PSH, ACK], wait: false, bytes: 3}"
    assert Action("connect", {}).describe() == "connect"


def test_what_is_expected_depends_on_the_fixes_and_the_kernel() -> None:
    late = Expectation(Outcome.COMPLETED, "forgives-late-segments")
    experiment = Experiment(
        "late",
        "It is late.",
        (),
        "client",
        ToService("web"),
        needs=("htb",),
        expect=(("plain", (late, Expectation(Outcome.RESET))), ("a+b", (Expectation(Outcome.STALLED),))),
    )
    assert experiment.capabilities() == ("htb", "forgives-late-segments")
    assert experiment.expected((), {"htb"}) is Outcome.RESET
    assert experiment.expected((), {"forgives-late-segments"}) is Outcome.COMPLETED
    assert experiment.expected(("b", "a"), ()) is Outcome.STALLED
    assert experiment.expected(("b",), ()) is None


def test_a_fix_leaves_out_what_it_makes_impossible(tmp_path: Path) -> None:
    text = OWN.replace("  - sysctl: {{", "  - unless: [notrack, be-liberal]\n    sysctl: {{").replace(
        "    observe: {{entry: {{in: client-node, change: update, tcp_state: ESTABLISHED}}}}",
        "    observe: {{entry: {{in: client-node}}, unless: notrack}}",
    )
    file = own(tmp_path, text)
    (run,) = catalogue.runs(file.read_text(), str(file))
    plain, liberal, untracked = (run.experiment.with_fixes(fixes) for fixes in ((), ("be-liberal",), ("notrack",)))
    assert plain == run.experiment
    assert [step.stimulus and step.stimulus.name for step in plain.steps if step not in liberal.steps] == ["sysctl"]
    assert (liberal.steps[0].observe, untracked.steps[0].observe) == (plain.steps[0].observe, ())
    assert not untracked.has("sysctl")
    file.write_text(file.read_text().replace("unless: notrack", "unless: notrak"))
    with pytest.raises(NetlabError) as caught:
        catalogue.runs(file.read_text(), str(file))
    assert str(caught.value).endswith("there is no fix 'notrak'\n  hint: did you mean 'notrack'?")


def test_every_problem_of_a_document_is_told(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(
        dedent(f"""\
            claim: It shows.
            topology: {TOPOLOGIES / "kube-proxy-reset.yaml"}
            client: clinet
            service: wed
            needs: [netm]
            steps:
              - conect
              - send: {{from: server, bytes: many}}
              - connect: {{}}
                push: client
              - datagram: {{in: client, to: dsn, port: 53}}
              - datagram: {{in: client, to: 10.0.0.9, port: 53}}
              - sysctl: {{in: nod, name: net.ipv4.ip_forward, value: 1}}
                observe:
                  - pocket: {{in: client}}
              - delete-entry: client-node
            expect:
              plain: rest
              drop-invalit: reset
              be-liberal: {{forgives-late-segments: completed}}
            """)
    )
    with pytest.raises(NetlabError) as caught:
        catalogue.runs(file.read_text(), str(file))
    assert caught.value.exit_code == 2
    assert str(caught.value).replace(f"{tmp_path}/", "") == dedent("""\
        wrong.yaml:3:9: client: no namespace is called 'clinet'
          hint: did you mean 'client'?
        wrong.yaml:4:10: service: no service is called 'wed'
          hint: did you mean 'web'?
        wrong.yaml:5:9: needs[0]: 'netm' is not a capability
          hint: did you mean 'netem'?
        wrong.yaml:7:5: steps[0]: 'conect' is not a stimulus
          hint: did you mean 'connect'?
        wrong.yaml:8:33: steps[1].send.bytes: expected a whole number from 1 to 268435456, found the text 'many'
        wrong.yaml:9:5: steps[2]: expected a stimulus, found connect and push
          hint: a step has one; give each its own
        wrong.yaml:11:32: steps[3].datagram.to: 'dsn' is no address, and no namespace or service is called so
          hint: known: client, client-node, server-node, server, web
        wrong.yaml:15:9: steps[5].observe[0]: 'pocket' is not a condition
          hint: did you mean 'socket'?
        wrong.yaml:16:19: steps[6].delete-entry: expected a mapping, found the text 'client-node'
          hint: write {in: client-node}
        wrong.yaml:18:10: expect.plain: 'rest' is not an outcome
          hint: did you mean 'reset'?
        wrong.yaml:19:17: expect.drop-invalit: there is no fix 'drop-invalit'
          hint: did you mean 'drop-invalid'?
        wrong.yaml:20:15: expect.be-liberal: the key 'otherwise' is missing
          hint: otherwise: where none of the others holds
        """).rstrip("\n")


DOUBTFUL = """\
claim: "\\e[2J"
explanation: ""
name: My own
topology: {topology}
client: client
service: web
set:
  vars.client_window: 8192
  vars.no_such: 1
steps:
  - finish
  - connect: {{connection: second}}
  - connect:
    observe:
      - socket: {{of: server}}
      - counter: {{in: client, name: Tcp.InSegs, at_least: 0}}
      - received: {{by: client, bytes: 1, connection: third}}
  - connect
expect:
  plain+drop-invalid: reset
  be-liberal+be-liberal: reset
  be-liberal+drop-invalid: reset
  drop-invalid+be-liberal: completed
"""
"""Each line but those of the lab is one that YAML and the shapes of its values allow, and that means nothing."""


def problems(tmp_path: Path, text: str) -> str:
    file = tmp_path / "doubtful.yaml"
    file.write_text(text.format(topology=TOPOLOGIES / "kube-proxy-reset.yaml"))
    with pytest.raises(NetlabError) as caught:
        catalogue.runs(file.read_text(), str(file))
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{tmp_path}/", "").replace(f"{TOPOLOGIES}/", "") + "\n"


def test_what_means_nothing_is_a_problem(tmp_path: Path) -> None:
    # One after the other: a name is looked up in a lab that could be read, a connection among steps that could be.
    text = DOUBTFUL
    assert problems(tmp_path, text) == dedent("""\
        doubtful.yaml:9:17: set.vars.no_such: there is no 'no_such'
          hint: known: client_window
        """)
    text = text.replace("  vars.no_such: 1\n", "")
    first = "'be-liberal+drop-invalid'"
    assert problems(tmp_path, text) == dedent(f"""\
        doubtful.yaml:1:8: claim: it has the control character '\\x1b'
          hint: leave it out
        doubtful.yaml:2:14: explanation: there is nothing to read in it
          hint: say it in words
        doubtful.yaml:3:7: name: 'My own' can't be an experiment's name
          hint: a-z, 0-9 and -, not first or last
        doubtful.yaml:14:17: steps[2].observe[0].socket: it says nothing
          hint: at least one of unacked, unsent, window_below_segment, quiet
        doubtful.yaml:15:59: steps[2].observe[1].counter.at_least: 0 is not between 1 and 2147483648
        doubtful.yaml:19:23: expect.plain+drop-invalid: 'plain+drop-invalid' has plain among fixes
          hint: plain is without any
        doubtful.yaml:20:26: expect.be-liberal+be-liberal: 'be-liberal+be-liberal' has a fix twice
          hint: name each once
        doubtful.yaml:22:28: expect.drop-invalid+be-liberal: 'drop-invalid+be-liberal' is the same as {first}
          hint: keep one of them
        """)
    text = text.partition("expect:")[0].partition("set:")[0] + text.partition("8192\n")[2].partition("expect:")[0]
    text = text.replace("\\e[2J", "It shows.").replace('explanation: ""\n', "").replace("name: My own\n", "")
    text = text.replace("      - socket: {{of: server}}\n", "").replace("at_least: 0", "at_least: 1")
    made = "no step before this one makes the connection"
    assert problems(tmp_path, text + "expect: {{}}\n") == dedent(f"""\
        doubtful.yaml:6:5: steps[0]: finish: {made}
          hint: put a connect before it
        doubtful.yaml:11:54: steps[2].observe[1].received.connection: received: {made} 'third'
          hint: put a connect before it
        doubtful.yaml:12:5: steps[3]: there is a connection 'first' already
          hint: connect: {{connection: another-name}}
        doubtful.yaml:13:9: expect: expected at least one, found none
        """)
    named = text.replace("connect:\n", "connect: {{connection: third}}\n").partition("    observe")[0]
    assert problems(tmp_path, named.replace("  - finish\n", "") + "expect: {{plain: reset}}\n") == dedent("""\
        doubtful.yaml:6:27: steps[0].connect.connection: no step makes the connection under study
          hint: leave the name of one out
        """)


def test_no_connection_has_the_port_of_the_observers_own_packets(tmp_path: Path) -> None:
    file = with_step(tmp_path, "connect: {connection: other, source_port: 1}")
    with pytest.raises(NetlabError) as caught:
        catalogue.runs(file.read_text(), str(file))
    assert str(caught.value) == f"{file}:7:47: steps[1].connect.source_port: 1 is not between 2 and 65535"


def test_a_load_is_alone(tmp_path: Path) -> None:
    text = OWN.partition("steps:")[0] + "steps: [load, connect]\nexpect: {{plain: completed}}\n"
    assert problems(tmp_path, text).partition(": ")[2] == (
        "steps[1]: a load must be the only step that connects\n  hint: give each a document of its own\n"
    )


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("gone.yaml", "gone.yaml: there is no such file"),
        (".", ". is a directory"),
        ('"-"', "-: there is no such file"),
        ('"a\\0b"', "a\\x00b: embedded null byte"),
        ("loop", "loop: Too many levels of symbolic links"),
        ("doubtful.yaml", "doubtful.yaml is an experiment, not a topology"),
    ],
)
def test_a_file_that_cannot_be_the_labs_is_told_at_its_name(tmp_path: Path, named: str, said: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    text = OWN.replace("{topology}", named)
    told = problems(tmp_path, text).replace(str(tmp_path), ".").partition("\n")[0]
    assert told == f"doubtful.yaml:2:11: topology: {said}"
    listed = (TOPOLOGIES / "kube-proxy-reset.yaml").read_text().partition("experiments:")[0] + f"experiments: [{named}]"
    if named != "doubtful.yaml":
        line = listed.count("\n") + 1
        told = problems(tmp_path, listed.replace("{", "{{").replace("}", "}}")).replace(str(tmp_path), ".")
        assert told.partition("\n")[0] == f"doubtful.yaml:{line}:15: experiments[0]: {said}"


def test_an_experiment_is_no_topology(netlab: Netlab, tmp_path: Path) -> None:
    for command in ("up", "plan"):
        done = netlab(command, own(tmp_path), cwd=tmp_path)
        assert (done.stdout, done.returncode) == ("", 2)
        assert done.stderr == (
            f"{own(tmp_path)}:1:1: this is an experiment, not a topology\n"
            f"  hint: `netlab run {own(tmp_path)}` runs it\n"
        )


def test_lint_says_who_cannot_be_the_client(netlab: Netlab, tmp_path: Path) -> None:
    file = own(tmp_path, OWN.replace("service: web\n", "to: {{netns: client, port: 80}}\n"))
    done = netlab("lint", file)
    assert done.returncode == 2
    assert done.stderr == (
        f"note: this reads {TOPOLOGIES / 'kube-proxy-reset.yaml'},"
        " which is outside the directory of the file that names it\n"
        f"{file}:3:9: client: the client 'client' is the server too, and its packets pass no interface\n"
        "  hint: let another namespace connect\n"
    )


def test_a_document_without_a_topology_says_so(tmp_path: Path) -> None:
    file = tmp_path / "lost.yaml"
    file.write_text(OWN.replace("topology: {topology}\n", "").replace("{{", "{").replace("}}", "}"))
    with pytest.raises(NetlabError) as caught:
        catalogue.runs(file.read_text(), str(file))
    assert str(caught.value) == (
        f"{file} doesn't say which lab it is run in\n  hint: add `topology: FILE`, or list it in a topology"
    )


def test_a_topology_may_hold_a_document(tmp_path: Path) -> None:
    inline = "\n".join(f"    {line}" for line in own(tmp_path).read_text().splitlines()[:1])
    text = (TOPOLOGIES / "kube-proxy-reset.yaml").read_text().partition("experiments:")[0]
    text += f"experiments:\n  - name: inline\n{inline}\n    client: client\n    service: web\n"
    text += "    set: {vars.client_window: 8192}\n    steps: [connect]\n    expect: {plain: completed}\n"
    (run,) = catalogue.runs(text, "lab.yaml", (("experiment.payload_bytes", "7"),))
    assert (run.experiment.name, run.experiment.payload_bytes, run.document) == ("inline", 7, "")
    assert run.topology.netns("client").sysctls == (("net.ipv4.tcp_rmem", "4096 8192 8192"),)


def test_a_setting_changes_the_experiments_that_are_chosen_alone(tmp_path: Path) -> None:
    lab = tmp_path / "lab.yaml"
    for name, variable in (("one", "a"), ("two", "b")):
        text = OWN.format(topology=lab).replace("part: ", f"{variable}: ").replace("${part}", f"${{{variable}}}")
        (tmp_path / f"{name}.yaml").write_text(text)
    shipped = (TOPOLOGIES / "kube-proxy-reset.yaml").read_text().partition("experiments:")[0]
    lab.write_text(shipped + "experiments: [one.yaml, two.yaml]\n")
    settings = (("experiment.vars.b", "3"), ("vars.client_window", "8192"))
    (run,) = catalogue.runs(lab.read_text(), str(lab), settings, None, lambda found: found[1:])
    assert (run.experiment.name, run.settings, run.own) == ("two", settings[1:], settings[:1])
    with pytest.raises(NetlabError) as caught:
        catalogue.runs(lab.read_text(), str(lab), settings)
    assert str(caught.value) == "--set: experiment.vars.b: there is no 'b'\n  hint: known: a"


def test_a_document_in_a_topology_has_variables_and_no_other_lab() -> None:
    text = (TOPOLOGIES / "kube-proxy-reset.yaml").read_text().partition("experiments:")[0]
    text += "experiments:\n  - {vars: {size: 7}, name: one, payload_bytes: '${size}', client: client, service: web,\n"
    text += "     claim: It shows., steps: [connect], expect: {plain: completed}, set: {vars.client_window: 1}}\n"
    (run,) = catalogue.runs(text, "lab.yaml", (("experiment.vars.size", "9"),))
    assert run.experiment.payload_bytes == 9
    lines = text.count("\n")
    with pytest.raises(NetlabError) as caught:
        catalogue.runs(text.replace("claim: ", "topology: lab.yaml, claim: ").replace("client_window: 1", "no: 1"), "l")
    assert str(caught.value) == (
        f"l:{lines}:16: experiments[0].topology: an experiment in a topology is run there\n  hint: leave the key out"
    )
    with pytest.raises(NetlabError) as caught:
        catalogue.runs(text.replace("client_window: 1", "no: 1"), "l")
    assert str(caught.value) == (
        f"l:{lines}:85: experiments[0].set.vars.no: there is no 'no'\n  hint: known: client_window"
    )


def test_a_payload_that_is_too_small_for_the_steps_is_told(tmp_path: Path) -> None:
    file = with_step(tmp_path, "send: {from: server, bytes: 600000}")
    more = "send: {from: server, bytes: 400001}\n    observe: [{received: {by: client, bytes: 1000003}}]\n"
    file.write_text(file.read_text().replace("finish", f"{more}  - send: {{from: client, bytes: 1000000}}\n  - finish"))
    with pytest.raises(NetlabError) as caught:
        catalogue.runs(file.read_text(), "one.yaml")
    assert str(caught.value).splitlines() == [
        "one.yaml:8:33: steps[2].send.bytes: the server is to send 1,000,001 bytes in all, and the payload has "
        "1,000,000",
        "  hint: payload_bytes: 1000001, or more",
        "one.yaml:9:46: steps[2].observe[0].received.bytes: the client is to get 1,000,003 bytes, and the payload has "
        "1,000,000",
        "  hint: payload_bytes: 1000003, or more",
    ]


def test_what_an_end_has_to_write_it_gives_the_kernel_in_one_call() -> None:
    queue = Mock()
    queue.send.side_effect = len
    end = End("server", "server", queue, memoryview(bytes(200_000)), memoryview(b""))
    end.goal_bytes = 150_000
    assert end.write() == 0
    assert [len(call.args[0]) for call in queue.send.call_args_list] == [150_000]


# --- the kernel ------------------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_a_users_own_experiment_runs(netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str) -> None:
    text = OWN.replace('      - invalid: {{in: client-node, reason: "over the window"}}\n', "")
    options = ("--name", lab_name, privilege, "--trials", "2", "--format", "json")
    done = netlab("run", own(tmp_path, text), *options)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert (told["experiment"], told["result"], told["expected"]) == ("two-pauses", "not-reproduced", "completed")
    assert [trial["outcome"] for trial in told["trials"]] == ["completed", "completed"]
    observed = [piece for piece in told["trials"][0]["evidence"] if piece["link"] == "observed"]
    assert [piece["netns"] for piece in observed] == ["client-node", "client"]
    assert done.returncode == 0


@pytest.mark.kernel
def test_a_lab_other_than_the_files_is_told(netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str) -> None:
    """A copy of a topology lists the documents of the one it was copied from, which name that one."""
    document = own(tmp_path, OWN.replace('      - invalid: {{in: client-node, reason: "over the window"}}\n', ""))
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"namespaces: {{a: {{}}}}\nexperiments: [{document.name}]\n")
    done = netlab("run", mine, "--name", lab_name, privilege, "--trials", "1")
    assert done.stderr.splitlines() == [
        f"netlab: two-pauses is run in the lab of {TOPOLOGIES}/kube-proxy-reset.yaml, which its document names",
        f"  hint: for the lab of {mine} leave `topology` out of the document",
    ]
    assert done.returncode == 0


@pytest.mark.kernel
def test_what_was_to_be_observed_and_was_not_is_missing(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    done = netlab("run", own(tmp_path), "--name", lab_name, privilege, "--trials", "1", "--format", "json")
    (trial,) = json.loads(done.stdout)["trials"]
    line = "a line of conntrack's log in client-node that matches 'over the window'"
    assert (trial["outcome"], done.returncode) == ("inconclusive", 1)
    assert trial["missing"] == [f"{line} (within 5 s of steps[6], finish)"]
    assert trial["refuted"] == f"{line}; saw none"


@pytest.mark.kernel
def test_a_counter_that_there_is_none_of_is_told(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    file = with_step(tmp_path, "observe: [{counter: {in: server, name: Tcp.InSegz}}]")
    done = netlab("run", file, "--name", lab_name, "--trials", "1", "--format", "json")
    (trial,) = json.loads(done.stdout)["trials"]
    assert trial["missing"] == ["the counter Tcp.InSegz in server: there is none of that name (within 5 s of steps[1])"]
    assert done.returncode == 3


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("step", "missing"),
    [
        ("program: {in: client, command: 'false'}", "a success of `false` in client: it ended with 1"),
        (
            "program: {in: client, command: /no/such/program}",
            "a success of `/no/such/program` in client: it ended with 127: netlab: /no/such/program: command not found",
        ),
        (
            "program: {in: client, command: sleep 60, timeout_s: 0.2}",
            "the end of `sleep 60` in client, within 0.2 s",
        ),
        (
            "route: {in: client, to: 10.99.0.0/24, gateway: 10.0.0.1}",
            "a route to 10.99.0.0/24 in client, among those of the topology",
        ),
        (
            "route: {in: client, to: default, gateway: 203.0.113.9}",
            "a success of route (client: route default via 203.0.113.9: "
            "Network is unreachable (Nexthop has invalid gateway))",
        ),
        (
            "sysctl: {in: client, name: net.ipv4.tcp_sack, value: banana}",
            "a success of sysctl (client: sysctl net.ipv4.tcp_sack = banana: Invalid argument)",
        ),
        ("passive-ftp: {data_port: 80}", "a success of passive-ftp (Address already in use)"),
    ],
)
def test_a_stimulus_that_cannot_be_applied_is_told(
    netlab: Netlab, lab_name: str, tmp_path: Path, step: str, missing: str
) -> None:
    done = netlab("run", with_step(tmp_path, step), "--name", lab_name, "--trials", "1", "--format", "json")
    (trial,) = json.loads(done.stdout)["trials"]
    assert (trial["missing"], done.returncode) == ([missing], 3)


@pytest.mark.kernel
def test_an_interface_has_one_slow_class_at_a_time(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    skips.skip_unless_capability("htb")
    slow = 'slow-lane: {link: "server-node:eth0", from: server}'
    done = netlab("run", with_step(tmp_path, f"{slow}\n  - {slow}"), "--name", lab_name, "--trials", "1")
    assert "an interface without a qdisc of its own: server-node:eth0 has one" in " ".join(done.stdout.split())
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.kernel
def test_a_sysctl_that_this_kernel_lacks_is_a_skip(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    step = "sysctl: {in: client, name: net.ipv4.tcp_no_such, value: 1}"
    done = netlab("run", with_step(tmp_path, step), "--name", lab_name, "--trials", "1")
    assert (done.stdout, done.returncode) == ("", 77)
    assert done.stderr.startswith("netlab: this kernel has no sysctl net.ipv4.tcp_no_such in a network namespace")


EVERYTHING = """\
claim: What a trial changes is given back.
topology: {topology}
client: client
service: web
payload_bytes: 200000
steps:
  - sysctl: {{in: client, name: net.ipv4.tcp_sack, value: 0}}
  - route: {{in: client, to: default, gateway: 10.0.0.1}}
  - conntrack-helper: {{in: client-node, helper: ftp, port: 21}}
  - conntrack-helper: {{in: client-node, helper: ftp, port: 2121}}
  - corrupt: {{in: server-node, from: server}}
  - connect
  - hold-back: {{link: "server-node:eth0", from: server, for_s: 60}}
  - program: {{in: client, command: [sh, -c, "sleep 600 & true"]}}
  - program: {{in: client, command: [sh, -c, "touch {go}; sleep 600; true"], timeout_s: 60}}
expect:
  plain: completed
"""


@pytest.mark.kernel
def test_an_interrupted_trial_gives_everything_back(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    for capability in ("htb", "ftp-helper"):
        skips.skip_unless_capability(capability)
    lab = labs.Lab(netlab, lab_name, TOPOLOGIES / "kube-proxy-reset.yaml", privilege)
    lab.up()
    lab.up()  # the second writes down that the lab is at rest, as what follows would

    def changeable() -> list[str]:
        looks = "nft -s list tables; tc qdisc show; ip route; sysctl net.ipv4.tcp_sack; ethtool -k eth0 | grep checksum"
        return [lab.exec(netns, "sh", "-c", f"{looks}; true") for netns in ("client", "client-node", "server-node")]

    changed, running = changeable(), host.snapshot(netlab.rundir)
    file, go = tmp_path / "everything.yaml", tmp_path / "go"
    file.write_text(EVERYTHING.format(topology=lab.file, go=go))
    argv = netlab.argv("run", file, "--name", lab_name, privilege)
    with subprocess.Popen(argv, env=netlab.environment(), stderr=subprocess.PIPE, text=True) as played:
        labs.until(lambda: go.exists() or played.poll() is not None, "the last step")
        during = changeable()
        played.send_signal(signal.SIGINT)
        _, said = played.communicate(timeout=30)
    assert (said, played.returncode) == ("netlab: interrupted\n", 130)
    assert during != changed
    assert changeable() == changed
    assert host.changes(running, netlab.rundir) == ""
    assert lab.drift() == []


@pytest.mark.kernel
def test_a_reset_is_told_where_it_is_the_last_that_happens(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    for capability in ("raw-sockets", "tcp-repair"):
        skips.skip_unless_capability(capability)
    file = with_step(tmp_path, "craft-segment: {from: server, offset: 1000000}")
    file.write_text(file.read_text().replace("  - finish\n", "").replace("completed", "reset"))
    done = netlab("run", file, "--name", lab_name, "--trials", "5", "--format", "json")
    assert [trial["outcome"] for trial in json.loads(done.stdout)["trials"]] == ["reset"] * 5
    assert done.returncode == 0


ONE_NODE = """\
namespaces: {node: {role: node}, buyer: {role: pod}, till: {role: pod}}
bridges:
  - {name: cni0, netns: node, ports: [buyer, till]}
services:
  pay: {port: 80, target_port: 8080, endpoints: [till]}
experiments:
  - name: all-at-once
    claim: A server that has written all before its first packet is answered is reset all the same.
    client: buyer
    service: pay
    payload_bytes: 50000
    steps:
      - connect
      - send: {from: server, bytes: 10000}
        observe:
          received: {by: client, bytes: 10000}
      - delete-entry: {in: node}
        observe:
          entry: {in: node, change: destroy}
      - finish
    expect: {plain: reset}
"""


@pytest.mark.kernel
def test_a_server_that_has_written_all_is_reset_all_the_same(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    skips.skip_unless_capability("ctnetlink-delete")
    file = tmp_path / "lab.yaml"
    file.write_text(ONE_NODE)
    done = netlab("run", file, "--name", lab_name, "--trials", "5", "--format", "json")
    assert [trial["outcome"] for trial in json.loads(done.stdout)["trials"]] == ["reset"] * 5


@pytest.mark.kernel
def test_only_the_connection_under_study_can_stall(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    file = with_step(tmp_path, "connect: {connection: second}")
    file.write_text(file.read_text().replace("- finish", "- finish: {connection: second}"))
    done = netlab("run", file, "--name", lab_name, "--trials", "1", "--format", "json")
    (trial,) = json.loads(done.stdout)["trials"]
    assert (trial["outcome"], trial["missing"], done.returncode) == ("completed", [], 0)
