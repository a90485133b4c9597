"""Bundles: what is in them, that they say again what the run said, and what is no bundle."""

from __future__ import annotations

import html
import json
import re
import shlex
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import labs
import pytest
import story
from captures import told, tshark
from command import Netlab
from frames import FRAME, packet
from places import DATA, ROOT

from netlab.analysis.findings import analyse
from netlab.analysis.result import Result
from netlab.errors import UsageError
from netlab.lab import environment
from netlab.record import codec
from netlab.record.bundle import pack
from netlab.record.environment import Environment
from netlab.record.events import Packet, SocketEvent
from netlab.record.recording import Recording, Tap, recording_from_json
from netlab.report import bundle, text
from netlab.topology import load

FLAGSHIP = ROOT / "topologies" / "kube-proxy-reset.yaml"
ENVIRONMENT = Environment(
    kernel={"release": "6.18.44"},
    sysctls={"client": {"net.ipv4.ip_forward": "0"}},
    rules={"client-node": "table ip nat {\n}\n", "client": ""},
)
MEMBERS = [
    "manifest.json",
    "report.txt",
    "report.html",
    "result.json",
    "topology.yaml",
    "experiment.yaml",
    "plan.txt",
    "plan.sh",
    "rules/client-node.nft",
    "rules/client-node.iptables-save",
    "rules/client-node.listed",
    "sysctls.json",
    "kernel.json",
    "events.json",
    "judged.json",
    "frames.json",
    "packets.pcapng",
    "all-packets.pcapng",
]
PURE = [name for name in MEMBERS if name != "experiment.yaml"]
"""Of a recording whose experiment stands in the topology."""


def run() -> tuple[Result, Recording]:
    """A run of the flagship, hand-made."""
    result, recording = told(story.reset())
    recording = replace(recording, topology=FLAGSHIP.read_text(), settings=(("vars.window", "4096"),))
    return result, recording


def members() -> dict[str, bytes]:
    result, recording = run()
    return bundle.contents(load(recording.topology, "-"), result, analyse(recording), ENVIRONMENT)


def packed(changes: dict[str, bytes | None]) -> bytes:
    """A bundle with some members changed, or left out (None)."""
    whole: dict[str, bytes | None] = {**members(), **changes}
    return pack({name: content for name, content in whole.items() if content is not None}, story.START_NS)


# --- writing and reading ---------------------------------------------------------------------------------------------


def test_a_bundle_has_these_members_and_always_the_same_bytes(tmp_path: Path) -> None:
    result, recording = run()
    topology = load(recording.topology, "-")
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bundle.render(topology, result, analyse(recording), ENVIRONMENT))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert archive.namelist() == PURE
        assert {info.date_time for info in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}
        assert json.loads(archive.read("manifest.json")) == {
            "is": "netlab bundle",
            "format": 2,
            "lab": "tiny",
            "experiment": "window-overrun",
            "result": "reproduced",
            "fixes": [],
            "settings": ["vars.window=4096"],
            "kernel": "6.18.44",
            "began": "2023-11-14T22:13:20Z",
            "ended": "2023-11-14T22:13:20Z",
            "trials": 1,
            "recorded": [1],
        }
        assert json.loads(archive.read("sysctls.json")) == ENVIRONMENT.sysctls
        assert json.loads(archive.read("kernel.json")) == ENVIRONMENT.kernel
        assert archive.read("rules/client-node.listed").decode() == ENVIRONMENT.rules["client-node"]


def test_the_manifest_has_what_was_set_of_the_topology_and_of_the_experiment() -> None:
    result, recording = run()
    changed = replace(recording, experiment_settings=(("experiment.payload_bytes", "7000"),))
    manifest = json.loads(
        bundle.contents(load(recording.topology, "-"), result, analyse(changed), ENVIRONMENT)["manifest.json"]
    )
    assert manifest["settings"] == ["vars.window=4096", "experiment.payload_bytes=7000"]


def test_the_documents_list_of_members_is_right() -> None:
    document = (ROOT / "docs" / "bundle.md").read_text()
    listed = re.findall(r"^\| `([\w./<>-]+)` \|", document, re.MULTILINE)
    assert [name.replace("<node>", "client-node").replace("<netns>", "client-node") for name in listed] == MEMBERS


def test_what_is_read_is_what_was_written_but_for_the_frames(tmp_path: Path) -> None:
    result, recording = run()
    (tmp_path / "f").write_bytes(packed({}))
    read = bundle.read(tmp_path / "f")
    assert read.result == result
    bare = tuple(replace(event, frame=b"") if isinstance(event, Packet) else event for event in recording.events)
    assert read.recording == replace(recording, events=bare)
    assert read.texts["report.txt"] == text.render(read.result) == text.render(result)
    assert list(read.texts) == [name for name in PURE if not name.endswith(("events.json", "judged.json", "pcapng"))]


def test_the_frames_are_in_the_packets() -> None:
    one = packet(5)
    result, recording = run()
    more = analyse(replace(recording, events=(*recording.events, one)))
    found = bundle.contents(load(recording.topology, "-"), result, more, ENVIRONMENT)
    assert FRAME in found["packets.pcapng"]
    assert codec.to_json(FRAME).encode() not in found["events.json"]


# --- written by an earlier netlab ------------------------------------------------------------------------------------

FORMAT_1 = DATA / "bundles" / "format-1-run.zip"
"""Written by da9e62f: two trials of the shipped lab, but the members from which nothing is read."""


def test_a_run_of_format_1_is_reported_as_it_was(netlab: Netlab) -> None:
    done = netlab("report", FORMAT_1)
    assert (done.returncode, done.stdout.splitlines()[:3]) == (
        0,
        [
            "REPRODUCED 2/2",
            "window-overrun in lab tiny, no fix, kernel 6.18.44",
            "2 reset in 0.2 s; 4,608 of 2,000,000 bytes arrived; events lost: 0",
        ],
    )


def test_a_run_of_format_1_is_explained_as_it_was(netlab: Netlab) -> None:
    told = " ".join(netlab("explain", FORMAT_1).stdout.split())
    for words in (
        "RESET: 10.0.0.2:38760 > 192.168.0.2:80",
        "it ends 2,303 bytes past",
        'conntrack on client-node: INVALID, "SEQ is over upper bound 3015536532',
        "10.0.1.2",
        "ECONNRESET",
    ):
        assert words in told


# --- what is no bundle -----------------------------------------------------------------------------------------------


def foreign_zip() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello.txt", "hello")
    return file.getvalue()


def flipped() -> bytes:
    """A bundle in which one bit of the events is another."""
    whole = bytearray(packed({}))
    with zipfile.ZipFile(BytesIO(whole)) as archive:
        info = archive.getinfo("events.json")
    whole[info.header_offset + 30 + len("events.json") + info.compress_size // 2] ^= 1
    return bytes(whole)


def encrypted() -> bytes:
    """A bundle that claims that its manifest is encrypted."""
    whole = bytearray(packed({}))
    for signature, flags_at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        whole[whole.index(signature) + flags_at] |= 1
    return bytes(whole)


def changed(name: str, old: str, new: str) -> bytes:
    """A bundle in which the first such words of a member are others."""
    text = members()[name].decode()
    assert old in text
    return packed({name: text.replace(old, new, 1).encode()})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"sport": 40000', '"sport": 70000', ".segment.sport: 70000 is not between 0 and 65,535"),
        ('"ended_ns": 1', '"ended_ns": 9999999999999999999999', "ended_ns: "),
        ('"netns": "client"', '"netns": "\\ud800"', ".netns: '\\ud800' has half a character"),
        ('"src": "10.0.0.2"', '"src": "fe80::2"', "no packet goes from fe80::2 to"),
    ],
)
def test_an_odd_value_is_told_with_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "f"
    file.write_bytes(changed("events.json", old, new))
    with pytest.raises(UsageError) as caught:
        bundle.read(file)
    assert "events.json: " in str(caught.value)
    assert said in str(caught.value)


def test_a_namespace_that_the_topology_has_not_is_told() -> None:
    _, recording = run()
    whole = replace(recording, settings=())
    assert recording_from_json(codec.to_json(whole)) == whole
    raw = codec.to_json(replace(whole, taps=(Tap("nowhere", "eth0", "pod"),)))
    with pytest.raises(ValueError) as caught:
        recording_from_json(raw)
    assert str(caught.value) == "its topology has no namespace 'nowhere'"


def test_an_errno_that_is_none_is_told() -> None:
    raw = {**codec.to_json(story.error(1, "client")), "errno": -1}
    with pytest.raises(ValueError) as caught:
        codec.from_json(raw, SocketEvent)
    assert str(caught.value) == "errno: -1 is not between 0 and 4,095"


NO_BUNDLE = "FILE is not a bundle\n  hint: `netlab run --bundle FILE` writes one"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: b"", "FILE is not a bundle, or is damaged: it is not a zip file, or was cut off"),
        (lambda: b"lab: text\n", "FILE is not a bundle, or is damaged: it is not a zip file, or was cut off"),
        (lambda: packed({})[:-100], "FILE is not a bundle, or is damaged: it is not a zip file, or was cut off"),
        (foreign_zip, NO_BUNDLE),
        (lambda: packed({"manifest.json": b"[]"}), NO_BUNDLE),
        (lambda: packed({"manifest.json": b'{"is": "netlab bundle", "format": "1"}'}), NO_BUNDLE),
        (
            lambda: packed({"manifest.json": b'{"is": "netlab bundle", "format": 3}'}),
            "FILE is a bundle of format 3; this netlab understands 2 and less\n"
            "  hint: read it with the netlab that wrote it, or a newer one",
        ),
        (
            lambda: packed({"manifest.json": b"{"}),
            "FILE is damaged: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (
            lambda: packed({"judged.json": None}),
            "FILE is not a bundle, or is damaged: it has no judged.json",
        ),
        (lambda: packed({"judged.json": b'{"is": "Flow"}'}), "FILE is damaged: 'Flow', not Result"),
        (lambda: packed({"events.json": b"[" * 100_000}), "FILE is damaged: events.json: it nests too deep"),
        (lambda: packed({"report.txt": b"\xff"}), "FILE is damaged: 'utf-8' codec can't decode byte 0xff"),
        (flipped, "FILE is "),
        (
            lambda: packed({"report.html": bytes(200 << 20)}),
            "FILE is not a bundle, or is damaged: report.html unpacks to 209,715,200 bytes, of which",
        ),
        (
            lambda: packed({"../x": b"x"}),
            "FILE is not a bundle, or is damaged: the name '../x' is none that a bundle's member has",
        ),
        (
            lambda: packed({"events.json": b"[" + b"[]," * 9_000_000 + b"[]]"}),
            "FILE is damaged: events.json: to read it takes some",
        ),
        (encrypted, "FILE is not a bundle, or is damaged: manifest.json is encrypted"),
    ],
    ids=[
        "empty",
        "text",
        "cut off",
        "another zip",
        "manifest is a list",
        "format is text",
        "newer",
        "manifest is no JSON",
        "no result",
        "another value",
        "deep",
        "no UTF-8",
        "a bit",
        "a bomb",
        "a path",
        "many values",
        "encrypted",
    ],
)
def test_what_is_no_whole_bundle_is_an_error(
    netlab: Netlab, tmp_path: Path, make: Callable[[], bytes], said: str
) -> None:
    file = tmp_path / "f"
    file.write_bytes(make())
    with pytest.raises(UsageError) as caught:
        bundle.read(file)
    assert str(caught.value).replace(str(file), "FILE").startswith(said)


@pytest.mark.parametrize("command", ["report", "explain"])
def test_the_commands_say_what_is_wrong(netlab: Netlab, tmp_path: Path, command: str) -> None:
    file = tmp_path / "f"
    file.write_bytes(foreign_zip())
    done = netlab(command, file)
    assert done.stderr == f"netlab: {NO_BUNDLE.replace('FILE is', f'{file} is')}\n"
    assert (done.returncode, done.stdout) == (2, "")


def test_a_bundle_that_is_not_there(netlab: Netlab, tmp_path: Path) -> None:
    done = netlab("report", tmp_path / "f")
    assert (done.returncode, done.stderr) == (2, f"netlab: {tmp_path}/f: No such file or directory\n")


def test_report_says_it_as_text_json_and_html(netlab: Netlab, tmp_path: Path) -> None:
    file, page = tmp_path / "f", tmp_path / "p"
    file.write_bytes(packed({}))
    whole = members()
    assert netlab("report", file, "--html", page).stdout == whole["report.txt"].decode()
    assert page.read_bytes() == whole["report.html"]
    assert netlab("report", file, "--format", "json").stdout == whole["result.json"].decode()


# --- in the kernel ---------------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_a_run_is_told_again_from_its_bundle(netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str) -> None:
    file, pcap = tmp_path / "run.zip", tmp_path / "run.pcapng"
    options = ("--name", lab_name, privilege, "--trials", "2")
    done = netlab("run", FLAGSHIP, *options, "--bundle", file, "--pcapng", pcap)
    assert done.stderr == f"wrote {pcap}\nwrote {file}\n"
    assert done.returncode == 0
    again = netlab("report", file)
    assert (again.stdout, again.stderr, again.returncode) == (done.stdout, "", 0)
    explained = netlab("explain", file).stdout
    assert explained.startswith("RESET: ")
    shown = [set(re.findall(r"\+[0-9]+\.[0-9]{3} ms", said)) for said in (explained, done.stdout)]
    assert len(shown[0] & shown[1]) > 1  # the same moments on the same clock
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == MEMBERS
        sysctls = json.loads(archive.read("sysctls.json"))
        listed = archive.read("rules/client-node.listed").decode()
        kernel = json.loads(archive.read("kernel.json"))
        archive.extract("packets.pcapng", tmp_path)
        names = archive.namelist()
        told_by = b"\n".join(archive.read(name) for name in names if not name.endswith(".pcapng")).decode()
    assert sysctls["client-node"]["net.ipv4.ip_forward"] == "1"
    assert "net.ipv4.conf.veth-client.forwarding" in sysctls["client-node"]
    assert not any(key.endswith(("stable_secret", "tcp_fastopen_key")) for keys in sysctls.values() for key in keys)
    assert "dnat" in listed
    assert kernel["release"] == Path("/proc/sys/kernel/osrelease").read_text().strip()
    host_name = Path("/proc/sys/kernel/hostname").read_text().strip()
    assert len(host_name) < 4 or not re.search(rf"\b{re.escape(host_name)}\b", told_by)
    both = tshark(tmp_path / "packets.pcapng", "frame.comment")
    assert sum("The reply leaves the server" in comment for comment in both) == 2
    drawn = tshark(pcap, "frame.interface_name", "frame.comment")
    (reply,) = (line for line in drawn if "The reply leaves the server" in line)
    assert reply.startswith("server/eth0|#")
    assert "INVALID: conntrack on client-node: SEQ is over upper bound" in reply


PLAIN_TRANSFER = f"""\
claim: A transfer with nothing in its way completes.
topology: {FLAGSHIP}
set: {{vars.client_window: 65536}}
vars: {{size: 1000}}
client: client
service: web
payload_bytes: ${{size}}
steps: [connect, finish]
expect: {{plain: completed, drop-invalid: completed}}
"""


@pytest.mark.kernel
def test_what_was_played_is_played_again_from_its_bundle(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    file, document = tmp_path / "run.zip", tmp_path / "plain-transfer.yaml"
    document.write_text(PLAIN_TRANSFER)
    options = ("--trials", "1", "--fix", "drop-invalid", "--format", "json", privilege)
    settings = ("--set", "experiment.vars.size=7000", "--set", "experiment.timeout_s=5")
    done = netlab("run", document, "--name", lab_name, *options, *settings, "--bundle", file)
    assert done.returncode == 0, done.stderr
    read = bundle.read(file)
    assert json.loads(read.texts["manifest.json"])["settings"] == [
        "vars.client_window=65536",
        "experiment.vars.size=7000",
        "experiment.timeout_s=5",
    ]
    again = tmp_path / "again"
    again.mkdir()
    (again / "topology.yaml").write_text(read.texts["topology.yaml"])
    (again / "plain-transfer.yaml").write_text(read.texts["experiment.yaml"])
    page = html.unescape(read.texts["report.html"])
    command = shlex.split(next(match[1] for match in re.finditer(r"<code>netlab (run .*)</code>", page)))
    repeated = netlab(*command, "--format", "json", privilege, cwd=again)
    assert repeated.returncode == 0, repeated.stderr
    for said in (json.loads(done.stdout), json.loads(repeated.stdout)):
        assert (said["experiment"], said["lab"], said["fixes"]) == ("plain-transfer", lab_name, ["drop-invalid"])
        assert [(trial["outcome"], trial["payload_bytes"]) for trial in said["trials"]] == [("completed", 7000)]


@pytest.mark.kernel
def test_a_place_that_can_not_be_written_is_said_before_the_run(netlab: Netlab, lab_name: str) -> None:
    done = netlab("run", FLAGSHIP, "--name", lab_name, "--bundle", "/nowhere/f")
    assert done.stderr == "netlab: /nowhere/f can't be written\n  hint: name a file in a directory that is there\n"
    assert done.returncode == 2
    assert not netlab.rundir.exists()


@pytest.mark.kernel
def test_the_environment_of_a_lab_that_is_up(netlab: Netlab, lab_name: str, as_root: None, tmp_path: Path) -> None:
    from netlab.lab.directory import LabDirectory
    from netlab.lab.standing import open_lab

    lab = labs.make(netlab, lab_name, tmp_path, "--root")
    lab.up()
    lab.exec("client", "ip", "link", "add", "br.5", "type", "bridge")
    state = LabDirectory(netlab.rundir, lab_name).read()
    assert state is not None
    found = environment.collect(open_lab(state), ["client"])
    assert found.sysctls["client"]["net.ipv4.conf.br/5.forwarding"] == "0"
    assert found.rules == {"client": ""}
