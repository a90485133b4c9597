"""Systems that lack what others have: a chroot, no /sys, no programs, an empty or read-only /run, a /proc that hides.

A lab comes up in them, or an error says what is missing.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import host
import labs
import pytest
import skips
from command import Netlab

pytestmark = pytest.mark.kernel

CHROOT = """
for name in $(ls /); do
  case $name in proc|sys|run|etc) continue;; esac
  [ -d /$name ] && mkdir -p $ROOT/$name && mount --rbind /$name $ROOT/$name
done
mkdir -p $ROOT/proc $ROOT/etc $ROOT/run
mount -t proc proc $ROOT/proc
cp /etc/passwd /etc/hosts $ROOT/etc
"""
"""A directory that is no mount point, with what Python and netlab need in it."""

SYSTEMS = {
    "no sysfs": "mount -t tmpfs none /sys",
    "empty run": "mount -t tmpfs none /run",
    "hidden proc": "mount -t proc -o hidepid=2 proc /proc",
    "no programs": "PATH=/nonexistent",
    "read-only run": "mount -t tmpfs -o ro none /run",
    "no hosts": "mount -t tmpfs none /etc",
    "no proc": "mount -t tmpfs none /proc",
    "no devices": "mount -t tmpfs none /dev",
    "chroot": CHROOT,
}

MISSING = {
    ("read-only run", "--root"): (
        1,
        "netlab: can't make /run/netns: Read-only file system\n"
        "  hint: a rootless lab needs none: `netlab up --rootless`\n",
    ),
    **{
        ("no hosts", privilege): (
            1,
            "netlab: there is no /etc/hosts here to show the lab's names in\n  hint: touch /etc/hosts\n",
        )
        for privilege in ("--root", "--rootless")
    },
    **{
        ("no proc", privilege): (
            1,
            "netlab: /proc/self/uid_map: No such file or directory\n"
            "  hint: there is no /proc/self: mount its file system\n",
        )
        for privilege in ("--root", "--rootless")
    },
    **{
        ("no devices", privilege): (
            1,
            "netlab: the lab's holder could not start: /dev/null: No such file or directory\n",
        )
        for privilege in ("--root", "--rootless")
    },
    ("chroot", "--rootless"): (
        77,
        "netlab: this user can't make a user namespace: Operation not permitted\n"
        "  hint: the kernel lets nobody make one in a chroot: leave it\n",
    ),
}
"""What `up` ends with, and what it says, where it can't build."""

LIFE = """
$NETLAB up $FILE --name $LAB $PRIVILEGE
code=$?
if [ $code = 0 ]; then
  $NETLAB exec --lab $LAB client -- $PYTHON -c "
import os, socket
print(*sorted(name for _, name in socket.if_nameindex()), socket.gethostbyname('server'))
print(os.path.samefile('/', '$ROOT/.'))
"
  $NETLAB status $LAB >&2
  $NETLAB down $LAB
fi
exit $code
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_up_works_or_says_what_is_missing(
    netlab: Netlab, lab_name: str, privilege: str, as_root: None, tmp_path: Path, system: str
) -> None:
    skips.skip_unless_program("unshare")
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    python, *words = netlab.argv()
    variables = {
        "NETLAB": shlex.join([python, *words]),
        "PYTHON": python,
        "FILE": str(lab.file),
        "LAB": lab_name,
        "PRIVILEGE": privilege,
        "ROOT": "/",
    }
    life = ["/bin/sh", "-c", LIFE]
    begin = f"{SYSTEMS[system]}\nexec {shlex.join(life)}"
    if system == "chroot":
        (tmp_path / "chroot").mkdir()
        inside = f"ROOT=/; export ROOT; cd {shlex.quote(str(Path.cwd()))}; exec {shlex.join(life)}"
        begin = f"{CHROOT}\nexec chroot $ROOT {shlex.join(['/bin/sh', '-c', inside])}"
        variables["ROOT"] = str(tmp_path / "chroot")
    before = host.snapshot(netlab.rundir)
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", begin],
        env=netlab.environment(variables),
        capture_output=True,
        text=True,
    )
    if (system, privilege) in MISSING:
        assert (done.returncode, done.stderr, done.stdout) == (*MISSING[system, privilege], "")
    else:
        assert (done.returncode, done.stdout) == (0, "eth0 lo 10.255.0.2\nTrue\n"), done.stderr
        assert done.stderr.startswith(f"lab {lab_name} is up: ")
        assert done.stderr.endswith(f"lab {lab_name} is down\n")
    assert host.changes(before, netlab.rundir) == ""


INNER = """
export NETLAB_LAB_RUNDIR="$RUNDIR"
$NETLAB up $FILE --name $LAB --rootless -q && $NETLAB status $LAB --format json
code=$?
$NETLAB down $LAB -q
exit $code
"""


def test_a_lab_within_a_lab_knows_its_programs(
    netlab: Netlab, lab_name: str, privilege: str, rootless: None, tmp_path: Path
) -> None:
    outer = labs.make(netlab, lab_name, tmp_path, privilege)
    outer.up()
    file = tmp_path / "inner.yaml"
    file.write_text("namespaces: {server: {programs: [{name: it, command: sleep 1000}]}}\n")
    variables = {
        "NETLAB": shlex.join(netlab.argv()),
        "FILE": str(file),
        "LAB": f"{lab_name}-in",
        "RUNDIR": str(tmp_path / "run"),
    }
    done = netlab("exec", "-l", lab_name, "client", "--", "sh", "-c", INNER, env=variables)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["drift"] == []


STRANGE = 'import time; open("/proc/self/comm", "wb").write(b"a) \\xff ("); print("up", flush=True); time.sleep(1000)'


def test_a_program_may_call_itself_anything(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    script = tmp_path / "strange.py"
    script.write_text(STRANGE)
    program = f"{{name: it, command: python3 {script}, ready: {{output: up}}}}"
    topology = f"namespaces: {{server: {{programs: [{program}]}}}}\n"
    lab = labs.make(netlab, lab_name, tmp_path, privilege, topology)
    lab.up()
    assert lab.drift() == []
    lab.up()
