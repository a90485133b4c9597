"""The Debian package: made by scripts/deb, clean for lintian, and at work in a Debian that has nothing else."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import skips
from places import DOCS, ROOT, TOPOLOGIES


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package."""
    skips.skip_unless_program("dpkg-deb")
    command = [str(ROOT / "scripts/deb"), "--directory", str(tmp_path_factory.mktemp("deb"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_the_package_holds_netlab_and_what_debian_has_too_old(deb: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", deb, tmp_path], check=True)
    own = tmp_path / "usr/share/netns-lab"
    beside = {path.name for path in own.iterdir() if not path.name.endswith(".dist-info")}
    assert beside == {"netlab", "annotated_doc", "pyroute2", "typer"}
    subprocess.run(["diff", "-r", "-x", "__pycache__", "-x", "topologies", ROOT / "netlab", own / "netlab"], check=True)
    subprocess.run(["diff", "-r", TOPOLOGIES, tmp_path / "usr/share/doc/netns-lab/examples"], check=True)
    completion = tmp_path / "usr/share/bash-completion/completions/netlab"
    asked = (
        f". {completion}; COMP_WORDS=(netlab exa) COMP_CWORD=1; _netlab_completion .venv/bin/netlab; echo $COMPREPLY"
    )
    assert subprocess.check_output(["bash", "-c", asked], cwd=ROOT, text=True) == "examples\n"
    manual = subprocess.run(
        ["gzip", "-dc", tmp_path / "usr/share/man/man1/netlab.1.gz"], capture_output=True, check=True
    )
    assert manual.stdout == (DOCS / "netlab.1").read_bytes()


def test_lintian_has_nothing_against_it(deb: Path) -> None:
    skips.skip_unless_program("lintian")
    done = subprocess.run(
        ["lintian", "--allow-root", "--display-info", "--display-experimental", "--pedantic", deb],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.fixture
def debian(as_root: None) -> Iterator[Path]:
    """A Debian 12 of no more than the package depends on, gone after the test."""
    skips.skip_unless_program("mmdebstrap")
    depends = "python3,python3-nftables,python3-shellingham,python3-yaml"
    options = ["--variant=essential", f"--include={depends}", "--dpkgopt=force-unsafe-io", "--quiet"]
    with tempfile.TemporaryDirectory(prefix="netlab-debian-") as directory:
        root = Path(directory, "root")
        command = ["timeout", "300", "mmdebstrap", *options, "bookworm", str(root)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:  # no mirror, say
            pytest.skip(f"no Debian to be had: {' '.join(done.stderr.splitlines()[-3:])}")
        yield root


LIFE = """
set -e
mount -t proc proc "$1/proc"
exec chroot "$1" /bin/sh -ec '
  dpkg --install /netns-lab.deb >&2
  touch /etc/hosts
  cd /
  netlab doctor >&2
  netlab examples
  netlab run kube-proxy-reset --name "$LAB" --trials 1
  netlab up kube-proxy-reset --name "$LAB"
  netlab exec -l "$LAB" client -- python3 -c "import socket; print(socket.gethostbyname(\\"server\\"))"
  netlab down "$LAB"
  dpkg --purge netns-lab >&2
  find / -xdev -name "*netlab*" -o -xdev -name "netns-lab" >&2
'
"""


@pytest.mark.kernel
@pytest.mark.long
def test_the_package_alone_runs_the_flagship_in_a_debian(deb: Path, debian: Path, lab_name: str) -> None:
    skips.skip_unless_program("unshare")
    (debian / "netns-lab.deb").write_bytes(deb.read_bytes())
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", LIFE, "sh", debian],
        env={"LAB": lab_name, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "  window-overrun " in done.stdout
    assert "\nREPRODUCED 1/1\n" in done.stdout
    assert done.stdout.endswith("\n10.0.1.2\n")
    assert "\nnetlab can build labs here.\n" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Removing netns-lab")
