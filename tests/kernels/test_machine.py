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
    """The environment in which there is a kernel; skips where none can be fetched.

    A boot takes most of a minute where it is emulated, and needs no root: it is the ordinary user's to show.
    """
    if os.geteuid() == 0:
        pytest.skip("an ordinary user boots it: `sudo scripts/test` does both")
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
    flagship = "netlab run kube-proxy-reset --trials 1 --format json --bundle it.zip"
    says = f'uname -r; echo "$0 $1"; echo warned >&2; mkdir new; cp old new/copy; touch {elsewhere}; {flagship}; exit 7'
    asked = ("kernel", "run", KERNEL, "--", "sh", "-c", says, "a b", "c\nd")
    done = netlab(*asked, env=cache, cwd=here, timeout_s=600)
    assert done.stderr == "warned\nwrote it.zip\n", done.stderr
    release, words, what, told = done.stdout.split("\n", 3)
    assert release.startswith("6.1.0-")
    assert (words, what, done.returncode) == ("a b c", "d", 7)
    assert (here / "new/copy").read_text() == (here / "old").read_text() == "as it was"
    assert not elsewhere.exists()
    assert left_in(cache) == []
    result = json.loads(told)
    assert (result["result"], [each["outcome"] for each in result["trials"]]) == ("reproduced", ["reset"])
    assert result["kernel"] == release
    again = netlab("report", "it.zip", cwd=here)
    said = f"REPRODUCED 1/1\nwindow-overrun in lab kube-proxy-reset, no fix, kernel {release}\n"
    assert again.stdout.startswith(said)


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


def test_the_kernels_that_there_are(netlab: Netlab, cache: dict[str, str]) -> None:
    done = netlab("kernel", "list", "--format", "json", env=cache)
    listed = json.loads(done.stdout)
    assert [each["release"] for each in listed if each["fetched"]] == [
        place.name for place in Path(cache["XDG_CACHE_HOME"], "netlab/kernels").iterdir() if (place / "image").exists()
    ]
    assert {"release", "version", "size_bytes", "names", "fetched"} == set(listed[0])
    text = netlab("kernel", "list", env=cache).stdout
    assert [line.split()[-1] for line in text.splitlines() if " fetched" in line] == ["fetched"]
