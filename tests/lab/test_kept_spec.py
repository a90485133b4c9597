"""The topology that is kept of a lab is the one that its text means, and counts for nothing where it isn't."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import any_lab
import labs
import pytest
from command import Netlab

from netlab.lab import kept_spec, lifecycle, sealed
from netlab.lab.directory import LabDirectory
from netlab.lab.spec import Spec, load
from netlab.lab.state import LabState
from netlab.topology import read

TOPOLOGIES = sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))


@pytest.fixture
def directory(tmp_path: Path) -> LabDirectory:
    (tmp_path / "lab").mkdir()
    return LabDirectory(tmp_path, "lab")


def keep(directory: LabDirectory, spec: Spec) -> LabState:
    """Keep it as the lab's; the state that says the lab is that."""
    (directory.path / "topology.yaml").write_text(spec.text)
    (directory.path / "topology.yaml").chmod(0o600)
    kept_spec.keep(directory, spec)
    return LabState(
        spec.topology.name, "boot", rootless=False, file=spec.file, settings=spec.settings, fixes=spec.fixes
    )


def kept_of(directory: LabDirectory, state: LabState) -> Spec | None:
    return kept_spec.kept(directory, state, directory.topology_text())


def spec_of(text: str) -> Spec:
    return load(text, None, (), (), "lab")


@pytest.mark.parametrize("file", TOPOLOGIES, ids=lambda file: file.stem)
def test_what_is_kept_of_a_shipped_topology_is_the_same(directory: LabDirectory, file: Path) -> None:
    text, topology = read(str(file))
    spec = Spec(topology, text, str(file), named=True)
    state = keep(directory, spec)
    assert kept_of(directory, state) == spec


@pytest.mark.parametrize("seed", range(40))
def test_what_is_kept_of_any_topology_is_the_same(directory: LabDirectory, seed: int) -> None:
    text, topology = any_lab.Chance(seed).topology()
    spec = load(text, None, (), (), topology.name)
    state = keep(directory, spec)
    assert kept_of(directory, state) == spec


def test_it_counts_for_what_it_was_made_of_alone(directory: LabDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(labs.TWO)
    state = keep(directory, spec)
    assert kept_of(directory, state) == spec
    for other in (
        state._replace(lab="other"),
        state._replace(file="/elsewhere"),
        state._replace(settings=(("vars.x", "1"),)),
        state._replace(fixes=("drop-invalid",)),
    ):
        assert kept_of(directory, other) is None
    (directory.path / "topology.yaml").write_text(labs.TWO + "\n")
    assert kept_of(directory, state) is None
    (directory.path / "topology.yaml").write_text(labs.TWO)
    monkeypatch.setattr(sealed, "_code", lambda: b"another")
    assert kept_of(directory, state) is None


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 32, b"\xff" * 500])
def test_what_is_damaged_counts_for_nothing(directory: LabDirectory, damage: bytes) -> None:
    state = keep(directory, spec_of(labs.TWO))
    sound = directory.kept_spec.read_bytes()
    for data in (damage, sound[:-1], sound[:40] + damage + sound[40:] + b"."):
        directory.kept_spec.write_bytes(data)
        assert kept_of(directory, state) is None


@pytest.mark.parametrize(
    "value", [print, Path("x"), lifecycle.up, io.BytesIO(b"x")], ids=["function", "path", "netlab", "buffer"]
)
def test_nothing_but_a_topologys_values_comes_out_of_it(directory: LabDirectory, value: object) -> None:
    state = keep(directory, spec_of(labs.TWO))
    made = sealed.made_of(labs.TWO, None, (), ())
    sealed.keep(directory.kept_spec, pickle.dumps((made, value, ())))
    assert kept_of(directory, state) is None


@pytest.mark.kernel
def test_a_change_is_made_from_what_is_kept_as_from_the_text(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, labs.TWO)
    lab.up()
    file = lab.directory() / "spec.kept"
    edited = labs.TWO.replace("client: {}", "client: {sysctls: {net.ipv4.tcp_sack: 0}}")
    said = []
    for without in (False, True):
        lab.write(labs.TWO)
        lab.up()
        assert lab.up() == f"lab {lab.name} is up: nothing to do\n"
        if without:
            file.unlink()
        lab.write(edited)
        said.append(lab.up())
        assert file.exists()
        assert lab.drift() == []
    assert said[0] == said[1] == f"lab {lab.name} is up: 1 change\n  client: sysctl net.ipv4.tcp_sack = 0\n"
    lab.down()
    assert not lab.directory().exists()
