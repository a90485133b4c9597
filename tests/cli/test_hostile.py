"""Hostile text in arguments, names of files, topologies and bundles: it is told, and nothing in it is obeyed."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Netlab
from hostile import FORGED, HOSTILE, forbidden
from places import DATA, TOPOLOGIES

from netlab import escapes
from netlab.analysis.findings import analyse
from netlab.analysis.telling import tell
from netlab.errors import NetlabError, UsageError
from netlab.experiments.lint import lint
from netlab.record import pcapng
from netlab.record.recording import Tap
from netlab.report import bundle, explanation, ladder, packets, text
from netlab.report import html as page
from netlab.report import json as as_json
from netlab.report.sequence import build

BUNDLE = DATA / "bundles/format-1.zip"
FLAGSHIP = TOPOLOGIES / "kube-proxy-reset.yaml"
ARGUMENT = HOSTILE.replace("\0", "") + FORGED
"""What execve(2) takes as one word."""
NO_UTF8 = "\udcff\udc9b31m"
"""The bytes ff 9b 33 31 6d: the second is a CSI where a terminal takes C1 as single bytes."""


def check(done: subprocess.CompletedProcess[str]) -> None:
    """Nothing that a terminal obeys, no line of somebody else's, no traceback."""
    for stream in (done.stdout, done.stderr):
        assert forbidden(stream) == []
        assert FORGED not in stream
        assert "Traceback" not in stream


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word", [ARGUMENT, f"--{ARGUMENT}", NO_UTF8, f"--fix={ARGUMENT}"], ids=["word", "option", "bytes", "value"]
)
@pytest.mark.parametrize(
    "before",
    [
        (),
        ("lint",),
        ("plan",),
        ("plan", "--format"),
        ("plan", FLAGSHIP, "--set"),
        ("plan", FLAGSHIP, "--set", "vars.window"),
        ("plan", FLAGSHIP, "--fix"),
        ("plan", FLAGSHIP, "--name"),
        ("rules",),
        ("schema",),
        ("up",),
        ("up", "--nope"),
        ("up", "--dry-run", "--name", "x", "--set"),
        ("down",),
        ("status",),
        ("status", "--format"),
        ("exec",),
        ("exec", "-l"),
        ("shell",),
        ("run",),
        ("run", FLAGSHIP, "--trials"),
        ("run", FLAGSHIP, "-e"),
        ("report", BUNDLE, "--html"),
        ("matrix", FLAGSHIP, "-e"),
        ("matrix", FLAGSHIP, "--fix"),
        ("report",),
        ("capture", "-l"),
        ("capture", "--for"),
        ("watch",),
        ("explain",),
        ("explain", "--flow"),
        ("doctor", "--format"),
        ("fix",),
        ("fix", "list"),
        ("fix", "apply"),
        ("fix", "revert", "-l"),
    ],
    ids=lambda before: " ".join(map(str, before)).replace(f"{FLAGSHIP}", "FILE").replace(f"{BUNDLE}", "BUNDLE"),
)
def test_arguments(netlab: Netlab, tmp_path: Path, before: tuple[str | Path, ...], word: str) -> None:
    done = netlab(*before, word, cwd=tmp_path)
    check(done)
    assert done.returncode in (1, 2) or before in (("down",), ("schema",), ("report", BUNDLE, "--html"))


@pytest.mark.parametrize(
    "value",
    [f"vars.x={ARGUMENT}", f"{ARGUMENT}=1", f"namespaces.a.sysctls.net.x={NO_UTF8}"],
    ids=["value", "path", "bytes"],
)
def test_settings(netlab: Netlab, tmp_path: Path, value: str) -> None:
    (tmp_path / "topology.yaml").write_text("vars: {x: 1}\nnamespaces: {a: {}}\n")
    for command in (("lint",), ("plan",), ("up", "--dry-run"), ("rules", "a")):
        check(netlab(*command, "--set", value, cwd=tmp_path))


def test_names_of_files(netlab: Netlab, tmp_path: Path) -> None:
    there = tmp_path / (f"{HOSTILE.replace('/', '').replace(chr(0), '')[:80]}{FORGED}.yaml")
    there.write_text("name: a\nnamespaces: {a: {}}\nexperiments: [b.yaml]\n")
    wrong = tmp_path / os.fsdecode(b"\xff\x9b31m.yaml")
    wrong.write_text("a: [\n")
    unread = tmp_path / f"{there.name}.zip"
    unread.write_bytes(b"PK\x05\x06" + bytes(18))
    for command in ("lint", "plan", "run", "matrix", "report", "explain"):
        for file in (there, wrong, unread):
            done = netlab(command, file, cwd=tmp_path)
            check(done)
    made = netlab("report", BUNDLE, "--html", tmp_path / f"{there.name}.html")
    check(made)
    assert made.stderr.startswith("wrote ")


def test_completion_offers_nothing_that_is_obeyed(netlab: Netlab, tmp_path: Path) -> None:
    (tmp_path / f"{ARGUMENT.replace('/', '')}").mkdir()
    for shell in ("bash", "zsh", "fish"):
        env = {
            "_NETLAB_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": "netlab down ",
            "COMP_CWORD": "2",
            "_TYPER_COMPLETE_ARGS": "netlab down ",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "NETLAB_LAB_RUNDIR": str(tmp_path),
        }
        check(netlab(env=env))


# --- topologies ------------------------------------------------------------------------------------------------------


def mutations(node: Any, change: Callable[[str], str]) -> Iterator[Any]:
    """Copies of a tree of mappings and lists, in each of which one key or value is changed."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield {change(str(key)) if name == key else name: item for name, item in node.items()}
            yield from ({**node, key: item} for item in mutations(value, change))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from ([*node[:index], item, *node[index + 1 :]] for item in mutations(value, change))
    else:
        yield change(str(node))


@pytest.mark.parametrize("file", [DATA / "everything.yaml", DATA / "cases/docker-host.yaml", FLAGSHIP], ids=str)
def test_every_key_and_value_of_a_topology(file: Path) -> None:
    tree = yaml.safe_load(file.read_text())
    for changed in mutations(tree, lambda was: was + HOSTILE + FORGED):
        try:
            sound = lint(json.dumps(changed), "f.yaml", (), None, lambda _path: None)
            told = "\n".join(warning.told("f.yaml") for warning in sound.warnings)
        except NetlabError as error:
            told = str(error)
        assert forbidden(told) == []
        assert FORGED not in told


OBEYED = {
    "name": "a",
    "namespaces": {
        "a": {
            "programs": [
                {
                    "name": "p",
                    "command": ["printf", "%s", f"{ARGUMENT}'\"$(x)`"],
                    "env": {"A": ARGUMENT},
                    "ready": {"command": ["true", ARGUMENT]},
                },
            ],
        },
    },
}


def test_what_a_program_is_told_is_shown_and_not_obeyed(netlab: Netlab, tmp_path: Path) -> None:
    (tmp_path / "topology.yaml").write_text(json.dumps(OBEYED))
    for command in (
        ("lint",),
        ("plan",),
        ("plan", "--format", "json"),
        ("plan", "--format", "shell"),
        ("up", "--dry-run"),
        ("fix", "list", "topology.yaml"),
    ):
        done = netlab(*command, cwd=tmp_path)
        assert done.returncode == 0
        assert forbidden(done.stdout + done.stderr) == []
    told = json.loads(netlab("plan", "--format", "json", cwd=tmp_path).stdout)
    assert escapes.shell_word(ARGUMENT) in told["steps"][-1]["twin"]


@pytest.mark.parametrize(
    "namespace",
    [
        {"sysctls": {"net.ipv4.tcp_congestion_control": "cubic\x1b[2J"}},
        {"tables": {"inet t": "chain c { } # \x9b2J"}},
        {"bridges": {"br\u202e": {}}},
    ],
)
def test_what_other_programs_would_show_is_refused(netlab: Netlab, tmp_path: Path, namespace: dict[str, Any]) -> None:
    (tmp_path / "topology.yaml").write_text(json.dumps({"namespaces": {"a": namespace}}))
    done = netlab("lint", cwd=tmp_path)
    check(done)
    assert done.returncode == 2


# --- bundles ---------------------------------------------------------------------------------------------------------


def strings(node: Any, path: tuple[str | int, ...] = (), where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """The path of every text in a tree of objects, and what tells one kind of text from others."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from strings(value, (*path, key), (*where, (node.get("is"), key)))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from strings(value, (*path, index), where)
    elif isinstance(node, str):
        yield path, where[-2:]


def changed_at(node: Any, path: tuple[Any, ...], text: str) -> Any:
    if not path:
        return node + text
    key, rest = path[0], path[1:]
    if isinstance(node, dict):
        return node | {key: changed_at(node[key], rest, text)}
    return [*node[:key], changed_at(node[key], rest, text), *node[key + 1 :]]


def members_of(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_bundle(file: Path, members: dict[str, bytes]) -> None:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    file.write_bytes(packed.getvalue())


@pytest.mark.parametrize("name", ["format-1.zip", "format-1-run.zip"])
def test_every_text_of_a_bundle(name: str, tmp_path: Path) -> None:
    members = members_of(DATA / "bundles" / name)
    file = tmp_path / "b.zip"
    read = 0
    for member in ("manifest.json", "events.json", "judged.json"):
        tree = json.loads(members[member])
        kinds = {kind: path for path, kind in strings(tree)}
        for path in kinds.values():
            write_bundle(file, members | {member: json.dumps(changed_at(tree, path, HOSTILE + FORGED)).encode("utf-8")})
            try:
                contents = bundle.read(file)
            except UsageError as error:
                assert forbidden(str(error)) == [] and FORGED not in str(error)
                continue
            read += 1
            result, findings = contents.result, analyse(contents.recording)
            _, trial = result.shown()
            for words in (
                text.render(result),
                explanation.render(tell(findings)),
                ladder.render(build(findings, trial.flow, trial)),
            ):
                assert FORGED not in words
                assert max(map(len, escapes.lines(words).split("\n"))) <= 80
            for words in (
                as_json.render(result),
                explanation.as_json(tell(findings)),
                page.render(result, findings),
                packets.render("f", result, findings).data.decode("latin-1").replace("\0", ""),
            ):
                assert "\x1b[" not in words and "\x9b31m" not in words and "resu\u2066" not in words
            json.loads(as_json.render(result))
            assert forbidden(page.render(result, findings)) == []
    assert read > 30


def test_a_bundle_on_the_command_line(netlab: Netlab, tmp_path: Path) -> None:
    members = members_of(DATA / "bundles/format-1-run.zip")
    judged = json.loads(members["judged.json"])
    recording = json.loads(members["events.json"])
    for name in ("claim", "explanation", "lab", "kernel", "experiment"):
        judged[name] += HOSTILE + FORGED
    for name in ("lab", "kernel"):
        recording[name] += HOSTILE + FORGED
    for event in recording["events"]:
        if "text" in event:
            event["text"] += HOSTILE + FORGED
    file, html = tmp_path / "b.zip", tmp_path / "b.html"
    write_bundle(
        file, members | {"judged.json": json.dumps(judged).encode(), "events.json": json.dumps(recording).encode()}
    )
    for command in (
        ("report", file, "--html", html),
        ("report", file, "--ladder"),
        ("report", file, "--format", "json"),
        ("explain", file),
        ("explain", file, "--format", "json"),
    ):
        done = netlab(*command)
        assert done.returncode == 0
        check(done)
    assert forbidden(html.read_text()) == []
    assert "\\x1b[2J" in html.read_text()


def test_comments_in_a_capture(tmp_path: Path) -> None:
    blocks = pcapng.section_header(os=HOSTILE, hardware=HOSTILE, comment=HOSTILE)
    blocks += pcapng.interface_description(Tap(HOSTILE, HOSTILE, HOSTILE), expression=HOSTILE)
    assert b"\x1b" not in blocks and b"\xc2\x9b" not in blocks and "\u202e".encode() not in blocks
    assert blocks.count(b"\\x1b[2J") == 7
