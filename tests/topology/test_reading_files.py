"""What documents are read from: regular files, standard input and the shell's pipes; and what they name elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import Netlab

from netlab.errors import UsageError
from netlab.topology.files import Named, read_text

LAB = "namespaces: {a: {}}\n"


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory of a topology, beside which lies what it may name."""
    directory = tmp_path / "lab"
    directory.mkdir()
    return directory


def refusal(path: Path | str) -> str:
    with pytest.raises(UsageError) as caught:
        read_text(str(path))
    return caught.value.message


def test_what_is_no_regular_file_is_refused_at_once(fifo: Path) -> None:
    assert refusal(fifo) == f"{fifo} is not a regular file"
    assert refusal("/dev/zero") == "/dev/zero is not a regular file"
    assert refusal("/dev/null") == "/dev/null is not a regular file"
    assert refusal(fifo.parent) == f"{fifo.parent} is a directory"
    link = fifo.parent / "link"
    link.symlink_to(fifo)
    assert refusal(link) == f"{link} is not a regular file"
    link.unlink()
    link.symlink_to(link)
    assert refusal(link) == f"{link}: Too many levels of symbolic links"
    assert read_text("/proc/kmsg") == ""  # which would wait for the kernel's next message
    assert refusal("a\0b") == "a\0b: embedded null byte"
    assert refusal("a" * 5000) == f"{'a' * 5000}: File name too long"


def test_a_pipe_of_the_shell_is_read() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, LAB.encode())
    os.close(write_end)
    try:
        assert read_text(f"/dev/fd/{read_end}") == LAB
    finally:
        os.close(read_end)


def test_a_document_names_no_pipe_and_no_standard_input(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    try:
        with pytest.raises(UsageError, match="is not a regular file"):
            Named("lab.yaml", f"/dev/fd/{read_end}").read_text()
    finally:
        os.close(read_end)
        os.close(write_end)
    assert Named("lab.yaml", "-").path == "./-"
    with pytest.raises(UsageError, match="there is no such file"):
        Named(str(tmp_path / "lab.yaml"), "-").read_text()


def test_a_file_is_outside_whatever_its_name_looks_like(elsewhere: Path) -> None:
    file = str(elsewhere / "lab.yaml")
    (elsewhere / "below").mkdir()
    (elsewhere / "link").symlink_to("/etc/passwd")
    (elsewhere / "up").symlink_to("..")
    (elsewhere.parent / "lab2").mkdir()
    inside = ("exp.yaml", "below/exp.yaml", "below/../exp.yaml", "../lab/exp.yaml", str(elsewhere / "exp.yaml"))
    outside = ("../exp.yaml", "/etc/passwd", "link", "up/exp.yaml", "below/../../exp.yaml", "../lab2/exp.yaml", "a\0b")
    assert [name for name in inside if Named(file, name).outside] == []
    assert [name for name in outside if not Named(file, name).outside] == []


SECRET = ("root:x:0:0:secret\n", "key: *secret\n", "- [secret\n", "secret: 1\nmore: !secret a\n", '"\\secret"\n')


@pytest.mark.parametrize("secret", SECRET)
@pytest.mark.parametrize("key", ["experiments: [%s]\nnamespaces: {a: {}}\n", "topology: %s\nclaim: It shows.\n"])
def test_nothing_is_told_of_a_file_elsewhere_that_is_no_document(
    netlab: Netlab, elsewhere: Path, key: str, secret: str
) -> None:
    (elsewhere.parent / "passwd").write_text(secret)
    (elsewhere / "link").symlink_to("../passwd")
    kind = "experiment's document"
    for name in ("../passwd", str(elsewhere.parent / "passwd"), "link"):
        file = elsewhere / "lab.yaml"
        file.write_text(key % name)
        done = netlab("lint", file)
        assert done.returncode == 2
        assert "secret" not in done.stdout + done.stderr
        path = elsewhere / name
        assert f"note: this reads {path}, which is outside the directory of the file that names it\n" in done.stderr
        assert f"{path} is no {'topology' if 'claim' in key else kind}\n" in done.stderr
        assert f"  hint: `netlab lint {path}` says what it finds there\n" in done.stderr


@pytest.mark.parametrize("kind", ["fifo", "directory", "/dev/zero", "missing"])
@pytest.mark.parametrize("key", ["experiments: [%s]\nnamespaces: {a: {}}\n", "topology: %s\nclaim: It shows.\n"])
def test_a_document_names_regular_files_only(netlab: Netlab, tmp_path: Path, key: str, kind: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    file = tmp_path / "lab.yaml"
    file.write_text(key % kind)
    done = netlab("lint", file)
    assert done.returncode == 2
    why = {"directory": "is a directory", "missing": "there is no such file"}.get(kind, "is not a regular file")
    assert f"{kind}{':' if kind == 'missing' else ''} {why}\n" in done.stderr
    assert "  hint: a path is relative to the file that names it\n" in done.stderr


def test_a_sound_document_elsewhere_is_read_and_that_is_said(netlab: Netlab, elsewhere: Path) -> None:
    (elsewhere.parent / "lab.yaml").write_text("namespaces: {a: {}, b: {}}\nlinks: [{ends: [a, b]}]\n")
    file = elsewhere / "exp.yaml"
    file.write_text(
        "claim: It shows.\ntopology: ../lab.yaml\nclient: a\nto: {netns: b, port: 80}\n"
        "steps: [connect, finish]\nexpect: {plain: completed}\n"
    )
    done = netlab("lint", file)
    assert done.stderr == (
        f"note: this reads {elsewhere}/../lab.yaml, which is outside the directory of the file that names it\n"
        f"{file}: the experiment exp is sound\n"
    )
