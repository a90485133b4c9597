"""`netlab kernel`: another kernel is booted, and a command runs under it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import labs
import pytest
import skips
from command import Netlab

KERNEL = "6.1"
PROGRAMS = (f"qemu-system-{os.uname().machine}", "busybox", "modprobe", "file", "apt-get")

pytestmark = [pytest.mark.kernel, pytest.mark.long]


@pytest.fixture(scope="module")
def cache(shared_netlab: Netlab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which there is a kernel; skips where none can be fetched."""
    for program in PROGRAMS:
        skips.skip_unless_program(program)
    if not Path(sys.executable).with_name("virtme-run").exists():
        pytest.skip("needs virtme-ng")
    directory = tmp_path_factory.mktemp("cache")
    environment = {"XDG_CACHE_HOME": str(directory)}
    done = shared_netlab("kernel", "fetch", KERNEL, env=environment, timeout_s=300)
    if done.returncode == 1 and "apt-get failed" in done.stderr:
        pytest.skip(f"no kernel can be fetched: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()
    yield environment
    shutil.rmtree(directory)


def left_in(cache: dict[str, str]) -> list[str]:
    """What is in the directory of kernels and is neither one nor apt's."""
    places = Path(cache["XDG_CACHE_HOME"], "netlab/kernels").iterdir()
    return [place.name for place in places if place.name.startswith(("run-", "."))]


def test_a_command_runs_under_it(netlab: Netlab, cache: dict[str, str], tmp_path: Path) -> None:
    """It prints, ends and writes as it would here; but for files elsewhere, which go with the machine."""
    elsewhere = tmp_path / "elsewhere"
    here = tmp_path / "it's here"
    here.mkdir()
    (here / "old").write_text("as it was")
    says = f'uname -r; echo "$0 $1"; echo warned >&2; mkdir new; cp old new/copy; touch {elsewhere}; exit 7'
    asked = ("kernel", "run", KERNEL, "--", "sh", "-c", says, "a b", "c\nd")
    done = netlab(*asked, env=cache, cwd=here, timeout_s=400)
    assert done.stderr == "warned\n", done.stderr
    release, words = done.stdout.split("\n", 1)
    assert release.startswith("6.1.0-")
    assert (words, done.returncode) == ("a b c\nd\n", 7)
    assert (here / "new/copy").read_text() == (here / "old").read_text() == "as it was"
    assert not elsewhere.exists()
    assert left_in(cache) == []


def test_what_would_be_lost_is_refused(netlab: Netlab, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    done = netlab("run", "kube-proxy-reset", "--kernel", KERNEL, "--bundle", "../it.zip", cwd=here)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        f"netlab: ../it.zip would be gone with the virtual machine\n  hint: name a file below {here}\n",
    )


@pytest.mark.inside
def test_an_experiment_runs_under_it(netlab: Netlab, cache: dict[str, str], tmp_path: Path) -> None:
    asked = ("run", "kube-proxy-reset", f"--kernel={KERNEL}", "--trials", "1", "--format", "json", "--bundle", "it.zip")
    done = netlab(*asked, env=cache, cwd=tmp_path, timeout_s=600)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["result"], [each["outcome"] for each in result["trials"]]) == ("reproduced", ["reset"])
    assert result["kernel"].startswith("6.1.0-")
    told = netlab("report", "it.zip", cwd=tmp_path)
    assert told.stdout.startswith("REPRODUCED 1/1\nwindow-overrun in lab kube-proxy-reset, no fix, kernel 6.1.0-")


@pytest.mark.inside
def test_a_crash_is_told_with_its_place(netlab: Netlab, cache: dict[str, str], tmp_path: Path) -> None:
    crash = "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 1000"
    done = netlab("kernel", "run", KERNEL, "--", "sh", "-c", crash, env=cache, cwd=tmp_path, timeout_s=400)
    assert done.returncode == 1
    first, *console = done.stderr.splitlines()
    assert first == (
        "netlab: the machine ended before the command had (Kernel panic - not syncing: sysrq triggered crash in "
        "sysrq_handle_crash); its console:"
    )
    assert any("Call Trace" in line for line in console)
    assert left_in(cache) == []


@pytest.mark.inside
@pytest.mark.parametrize("when", ["begins", "boots"])
def test_killed_it_leaves_nothing(netlab: Netlab, cache: dict[str, str], tmp_path: Path, when: str) -> None:
    argv = netlab.argv("kernel", "run", KERNEL, "--", "sleep", "1000")
    with subprocess.Popen(argv, env=netlab.environment(cache), cwd=tmp_path) as running:
        if when == "begins":
            labs.until(lambda: left_in(cache) != [], "its directory")
        else:
            labs.until(lambda: bool(machines(cache)), "the machine")
        running.send_signal(signal.SIGKILL)
    labs.until(lambda: machines(cache) == left_in(cache) == [], "the end of all that it left")


def machines(cache: dict[str, str]) -> list[str]:
    """The processes that speak of this directory."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_text(errors="replace")
        except OSError:
            continue
        if cache["XDG_CACHE_HOME"] in words and "qemu" in words:
            found.append(place.parent.name)
    return found


@pytest.mark.inside
def test_the_kernels_that_there_are(netlab: Netlab, cache: dict[str, str]) -> None:
    done = netlab("kernel", "list", "--format", "json", env=cache)
    listed = json.loads(done.stdout)
    assert [each["release"] for each in listed if each["fetched"]] == [
        place.name for place in Path(cache["XDG_CACHE_HOME"], "netlab/kernels").iterdir() if (place / "image").exists()
    ]
    assert {"release", "version", "size_bytes", "names", "fetched"} == set(listed[0])
    text = netlab("kernel", "list", env=cache).stdout
    assert [line.split()[-1] for line in text.splitlines() if " fetched" in line] == ["fetched"]
