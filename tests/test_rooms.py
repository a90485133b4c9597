"""The rooms of netlab and who may import whom: `scripts/rooms` reads every import, and none breaks a rule."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT


def rooms(*words: str) -> subprocess.CompletedProcess[str]:
    """`scripts/rooms` run to its end."""
    return subprocess.run([sys.executable, ROOT / "scripts/rooms", *words], capture_output=True, text=True, timeout=60)


def house(root: Path, **files: str) -> Path:
    """A tree with these sources: `lab_plan` is netlab/lab/plan.py, `lab` is netlab/lab/__init__.py."""
    for name, source in files.items():
        path = root / "netlab" / name.replace("_", "/")
        path = path.with_suffix(".py") if "_" in name else path / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root


def test_no_import_breaks_a_rule() -> None:
    done = rooms("--format", "none")
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_tree_without_fault_is_drawn_and_ends_with_0(tmp_path: Path) -> None:
    root = house(
        tmp_path, model="", record_events="import netlab.model\n", lab_plan="from netlab.record import events\n"
    )
    done = rooms("--root", str(root))
    assert (done.stdout, done.stderr, done.returncode) == (
        " 3  lab (1 file) -> record 1\n 2  record (1 file) -> model 1\n 1  model (1 file)\n",
        "",
        0,
    )


@pytest.mark.parametrize(
    "source",
    [
        "from netlab.cli import runs\n",
        "from netlab.cli.runs import run\n",
        "import netlab.cli.runs as runs\n",
        "from ..cli import runs\n",
        "def later():\n    from netlab.cli import runs\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from netlab.cli import runs\n",
        "from importlib import import_module\nimport_module('netlab.cli.runs')\n",
    ],
)
def test_every_kind_of_import_counts(tmp_path: Path, source: str) -> None:
    done = rooms("--root", str(house(tmp_path, lab="", lab_exec=source, cli_runs="")), "--format", "none")
    assert (done.stderr, done.returncode) == ("upward: lab.exec -> cli.runs\n", 1)


def test_a_pure_file_imports_none_that_touches_the_kernel(tmp_path: Path) -> None:
    root = house(tmp_path, linux_tc="", lab_apply="import netlab.linux.tc\n", lab_plan="import netlab.linux.tc\n")
    assert rooms("--root", str(root)).stderr == "pure: lab.plan -> linux.tc\n"


@pytest.mark.parametrize("source", ["import os\n", "def now():\n    from time import time_ns\n", "import os.path\n"])
def test_a_pure_file_imports_no_library_that_touches_the_kernel(tmp_path: Path, source: str) -> None:
    root = house(tmp_path, lab_plan=source, lab_apply=source)
    assert rooms("--root", str(root)).stderr == f"pure: lab.plan -> library {'time' if 'time' in source else 'os'}\n"


def test_a_registry_imports_the_files_beside_it(tmp_path: Path) -> None:
    registry = "from importlib import import_module\nfor name in ():\n    import_module(f'{__name__}.{name}')\n"
    root = house(tmp_path, links=registry, links_veth="", links_vlan="from netlab.links import of\n")
    done = rooms("--root", str(root), "--format", "none")
    assert done.stderr == "circle: links -> links.vlan -> links (one of 2 files)\n"


def test_circles_are_named_by_their_shortest_way_round(tmp_path: Path) -> None:
    root = house(
        tmp_path,
        conntrack_a="from netlab.conntrack import b\n",
        conntrack_b="from netlab.conntrack import c, a\n",
        conntrack_c="from netlab.conntrack import a\n",
    )
    done = rooms("--root", str(root), "--format", "none")
    assert done.stderr == "circle: conntrack.a -> conntrack.b -> conntrack.a (one of 3 files)\n"


def test_rooms_in_a_circle_share_a_floor(tmp_path: Path) -> None:
    root = house(
        tmp_path, model="", links_a="import netlab.topology.a\n", topology_a="import netlab.links.a, netlab.model\n"
    )
    assert rooms("--root", str(root)).stdout == (
        " 2  links (1 file) -> topology 1!\n"
        " 2  topology (1 file) -> links 1!, model 1\n"
        " 1  model (1 file)\n"
        "circle of 2 rooms: links, topology\n"
    )


def test_a_file_in_no_room_is_named(tmp_path: Path) -> None:
    assert rooms("--root", str(house(tmp_path, attic="")), "--format", "none").stderr == "no room: attic\n"


def test_a_graph_for_mermaid(tmp_path: Path) -> None:
    root = house(tmp_path, model="", record_events="import netlab.model\n")
    assert rooms("--root", str(root), "--format", "mermaid").stdout == (
        "flowchart TD\n"
        '  subgraph floor2["2"]\n    record["record (1)"]\n  end\n'
        '  subgraph floor1["1"]\n    model["model (1)"]\n  end\n'
        "  record -->|1| model\n"
    )


def test_an_unknown_revision_is_said_as_such() -> None:
    done = rooms("--at", "no-such-revision")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("rooms: fatal: ")


def test_every_file_that_a_text_names_is_there() -> None:
    folders = [ROOT / name for name in ("netlab", "tests", "scripts", "docs")]
    there = {path for folder in folders for path in folder.rglob("*.py")}
    suffixes = {"/".join(path.relative_to(ROOT).parts[i:]) for path in there for i in range(4)}
    texts = [*there, *(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]
    named = {(path, name) for path in texts for name in re.findall(r"`((?:\w+/)*\w+\.py)`", path.read_text())}
    assert sorted(f"{path.relative_to(ROOT)}: {name}" for path, name in named if name not in suffixes) == []
