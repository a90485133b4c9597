"""The documents: what docs/topology.md says of the language is so, and every command in a document is one."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
import skips
import typer
import yaml
from command import Netlab
from markdown import blocks, steps
from places import ROOT, TOPOLOGIES

from netlab.cli.app import app
from netlab.experiments import catalogue
from netlab.links import KINDS
from netlab.links.qdisc import QDISC
from netlab.topology import load
from netlab.topology.language import (
    ADDRESSING,
    FIX,
    KUBE_PROXY,
    NAMESPACE,
    PROGRAM,
    READY,
    ROUTE,
    SERVICE,
    SERVICE_PORT,
    SESSION_AFFINITY,
    TOPOLOGY,
)
from netlab.yamlspec.compose import compose
from netlab.yamlspec.document import Reader
from netlab.yamlspec.shapes import Fields

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
PAGE = (ROOT / "docs" / "topology.md").read_text()

TABLES = {
    "Top level": TOPOLOGY,
    "Namespace": NAMESPACE,
    **{table.heading: table.keys for kind in KINDS for table in kind.tables},
    "Route": ROUTE,
    "Program": PROGRAM,
    "Ready": READY,
    "Service": SERVICE,
    "Service port": SERVICE_PORT,
    "Session affinity": SESSION_AFFINITY,
    "kube-proxy": KUBE_PROXY,
    "Addressing": ADDRESSING,
    "Fix": FIX,
}
"""Each table of keys by its heading, and the description that it must agree with."""


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head; a code cell keeps its `|`."""
    section = page.split(f"### {heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.findall(r"\|((?:`[^`]*`|[^|`])*)(?=\|)", line)] for line in lines]


@pytest.mark.parametrize("heading", TABLES)
def test_a_table_has_the_keys_of_the_language(heading: str) -> None:
    described = {row[0].strip("`"): row[2].startswith("required") for row in rows(PAGE, heading)}
    required = {name: key.required for name, key in TABLES[heading].keys.items()}
    if heading == "Service":
        required["port"] = True  # by resolve.py: there, or in each of ports
    assert described == required


@pytest.mark.parametrize("heading", TABLES)
def test_each_example_of_a_table_is_read_without_a_problem(heading: str) -> None:
    for row in rows(PAGE, heading):
        name, example = row[0].strip("`"), row[4].strip("`")
        assert example.startswith(f"{name}: ")
        reader = Reader()
        ((_, value),) = reader.pairs(compose(example, "example").root, "")  # type: ignore[arg-type]
        assert TABLES[heading].keys[name].shape.read(reader, value, name) is not None, example
        assert reader.problems == []


def test_the_table_of_qdiscs_has_every_kind_and_key() -> None:
    described = {}
    for line in PAGE.split("## Qdiscs\n", 1)[1].split("\n#", 1)[0].splitlines():
        if line.startswith("| `"):
            kind, *words = re.findall(r"`(\w+)`", line.rsplit("|", 2)[0])
            described[kind] = set(words)
    assert described == {kind: set(fields.keys) - {"kind"} for kind, fields in QDISC.kinds.items()}


def test_what_is_made_from_the_code_is_not_old() -> None:
    done = subprocess.run([ROOT / "scripts/pages", "--check"], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0), "scripts/pages writes it anew"


def test_the_man_page_has_every_command_and_option_and_no_mistake() -> None:
    page = (ROOT / "docs/netlab.1").read_text().replace("\\-", "-")
    commands = [(["netlab"], typer.main.get_command(app()))]
    while commands:
        way, command = commands.pop()
        commands += [([*way, name], inner) for name, inner in getattr(command, "commands", {}).items()]
        assert f".B {' '.join(way)}" in page
        for parameter in command.params:
            assert all(word in page for word in parameter.opts if word.startswith("-")), (way, parameter.opts)


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_the_man_page_is_set_without_a_warning(columns: int) -> None:
    skips.skip_unless_program("groff")
    argv = ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", f"-rLL={columns}n", str(ROOT / "docs/netlab.1")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = re.sub(r"\x1b\[[\d;]*m|.\x08", "", done.stdout).splitlines()
    assert max(map(len, lines)) <= columns
    assert [line for line in lines if line.startswith("       netlab run ")]


def test_every_key_of_the_language_is_in_a_table() -> None:
    """A new mapping inside the language needs a table of its own, or it would stay unmentioned."""
    met: list[Fields] = []

    def walk(shape: object) -> None:
        if isinstance(shape, Fields) and shape not in met:
            met.append(shape)
            for key in shape.keys.values():
                walk(key.shape)
        elif hasattr(shape, "item"):
            walk(shape.item)

    walk(TOPOLOGY)
    described = {name for fields in TABLES.values() for name in fields.keys}
    assert {name for fields in met for name in fields.keys} - described == set()
    assert len(met) == len(TABLES) + 1  # a link's end has a port's keys but one


def test_every_whole_topology_in_a_document_loads(tmp_path: Path) -> None:
    (tmp_path / "topologies").symlink_to(TOPOLOGIES)
    loaded = 0
    for path in DOCUMENTS:
        for block in blocks(path.read_text()):
            if named := re.match(r"# ([\w.-]+)\n", block.text):
                (tmp_path / named[1]).write_text(block.text)
            if block.language == "yaml" and "name: wrong" not in block.text:
                if catalogue.is_document(block.text, f"{path.name}:{block.line}"):
                    catalogue.runs(block.text, str(tmp_path / f"{path.name}:{block.line}"))
                    continue
                assert "namespaces" in yaml.safe_load(block.text), f"{path.name}:{block.line}"
                load(block.text, f"{path.name}:{block.line}")
                loaded += 1
    assert loaded >= 5


# --- what the page says that a command prints ------------------------------------------------------------------------


def printed(done: subprocess.CompletedProcess[str]) -> str:
    """Both streams, without the blanks that `ip` leaves at the ends of lines."""
    return re.sub(r" +$", "", done.stdout + done.stderr, flags=re.MULTILINE)


@pytest.mark.kernel
def test_the_tutorial_prints_what_it_says(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    skips.skip_unless_userns()
    for program in ("ip", "curl", "getent"):
        skips.skip_unless_program(program)
    skips.skip_unless_capability("tbf")
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    told, seen = "", ""
    for block in blocks(PAGE.replace("tutorial", lab_name)):
        if block.language == "yaml":
            (tmp_path / "topology.yaml").write_text(block.text)
        elif block.language == "console":
            for command, output in steps(block.text):
                assert command.startswith("netlab ")
                done = netlab(*shlex.split(command)[1:], cwd=tmp_path, env=path)
                told += f"$ {command}\n{output}"
                seen += f"$ {command}\n{printed(done)}"
    assert seen == told


# --- commands --------------------------------------------------------------------------------------------------------


def commands(page: str) -> Iterator[str]:
    """Every command line that starts with `netlab`, in a block or between backticks."""
    plain = page
    for block in blocks(page):
        plain = plain.replace(block.text, "", 1)
        if block.language in ("sh", "console", "yaml"):
            for line in block.text.splitlines():
                match = re.match(r"(?:[$#] +)?(?:\.venv/bin/)?netlab (.*)", line)
                if match:
                    yield match[1]
    for match in re.finditer(r"`(?:\.venv/bin/)?netlab ([^`]*)`", plain):
        yield match[1]


def refusal(line: str) -> str:
    """What the command line is told if it is a wrong usage; empty where it parses. Nothing is run."""
    command = typer.main.get_command(app())
    disarm(command)
    words = shlex.split(line.split(" # ")[0].split(" >")[0])
    told = io.StringIO()
    with redirect_stderr(told), redirect_stdout(io.StringIO()), suppress(SystemExit):
        command.main(words, "netlab")
    return told.getvalue()


def disarm(command: Any) -> None:
    """Leave a command its options, and nothing to do."""
    command.callback = None
    for inner in getattr(command, "commands", {}).values():
        disarm(inner)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_parses(path: Path) -> None:
    # COMMAND and the like stand for a word of the reader's own.
    lines = [line for line in commands(path.read_text()) if not line.startswith("COMMAND")]
    assert [f"netlab {line}: {why}" for line in lines if (why := refusal(line))] == []


def test_a_command_that_is_none_would_be_noticed() -> None:
    assert "No such option: --wrong" in refusal("up --wrong")
    assert "No such command 'upp'" in refusal("upp")
    assert "Invalid value for '--format'" in refusal("plan --format xml")
    assert refusal("up topology.yaml --set vars.a=1") == ""
