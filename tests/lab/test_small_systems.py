"""Systems that lack what others have: a chroot, no /sys, no programs, an empty or read-only /run, a /proc that hides.

A lab comes up in them, or an error says what is missing.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import host
import labs
import pytest
import skips
from command import Netlab

from netlab.advice import as_root

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
            f"netlab: there is no /etc/hosts here to show the lab's names in\n  hint: {as_root('touch /etc/hosts')}\n",
        )
        for privilege in ("--root", "--rootless")
    },
    **{
        ("no proc", privilege): (
            1,
            "netlab: /proc/self/uid_map: No such file or directory\n"
            f"  hint: there is no /proc/self: {as_root('mount -t proc proc /proc')}\n",
        )
        for privilege in ("--root", "--rootless")
    },
    **{
        ("no devices", privilege): (
            1,
            "netlab: the lab's holder could not start: /dev/null: No such file or directory\n"
            f"  hint: there is no /dev/null: {as_root('mknod -m 666 /dev/null c 1 3')}\n",
        )
        for privilege in ("--root", "--rootless")
    },
    ("chroot", "--rootless"): (
        77,
        "netlab: this user can't make a user namespace: Operation not permitted\n"
        "  hint: the kernel allows no user namespace in a chroot: leave the chroot, or run netlab as root\n",
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


def run_in(
    system: str, script: str, netlab: Netlab, variables: dict[str, str], directory: Path
) -> subprocess.CompletedProcess[str]:
    """Run a script in a mount namespace that is such a system; with $NETLAB, $PYTHON, and its root in $ROOT."""
    skips.skip_unless_program("unshare")
    python, *words = netlab.argv()
    root, inside = "/", shlex.join(["/bin/sh", "-c", script])
    begin = f"{SYSTEMS[system]}\nexec {inside}"
    if system == "chroot":
        root = str(directory / "chroot")
        Path(root).mkdir()
        inside = f"ROOT=/; export ROOT; cd {shlex.quote(str(Path.cwd()))}; exec {inside}"
        begin = f"{CHROOT}\nexec chroot $ROOT {shlex.join(['/bin/sh', '-c', inside])}"
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", begin],
        env=netlab.environment(
            {"NETLAB": shlex.join([python, *words]), "PYTHON": python, "ROOT": root, **variables},
        ),
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("system", SYSTEMS)
def test_up_works_or_says_what_is_missing(
    netlab: Netlab, lab_name: str, privilege: str, as_root: None, tmp_path: Path, system: str
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    variables = {"FILE": str(lab.file), "LAB": lab_name, "PRIVILEGE": privilege}
    before = host.snapshot(netlab.rundir)
    done = run_in(system, LIFE, netlab, variables, tmp_path)
    if (system, privilege) in MISSING:
        assert (done.returncode, done.stderr, done.stdout) == (*MISSING[system, privilege], "")
    else:
        assert (done.returncode, done.stdout) == (0, "eth0 lo 10.255.0.2\nTrue\n"), done.stderr
        assert done.stderr.startswith(f"lab {lab_name} is up: ")
        assert done.stderr.endswith(f"lab {lab_name} is down\n")
    assert host.changes(before, netlab.rundir) == ""


AMISS = {
    "read-only run": ("a lab", "can't make /run/netns: Read-only file system"),
    "no hosts": ("a lab", "there is no /etc/hosts here to show the lab's names in"),
    "no proc": ("files", "there is no /proc/self"),
    "no devices": ("files", "there is no /dev/null"),
}
"""What `doctor` finds amiss where root can't build."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_doctor_says_of_each_what_up_says(netlab: Netlab, as_root: None, tmp_path: Path, system: str) -> None:
    before = host.snapshot(netlab.rundir)
    done = run_in(system, "$NETLAB doctor --format json", netlab, {}, tmp_path)
    assert done.stderr == ""
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    amiss = [(check["name"], check["detail"]) for check in found.values() if check["ok"] is False]
    assert amiss == ([AMISS[system]] if system in AMISS else [])
    assert done.returncode == (77 if amiss else 0)
    if amiss:
        hint = MISSING[system, "--root"][1].rpartition("hint: ")[2]
        assert f"{found[amiss[0][0]]['advice']}\n" in hint
    assert host.changes(before, netlab.rundir) == ""


FORBIDDING = """
echo 0 >/proc/sys/user/max_KIND_namespaces
exec setpriv --inh-caps -all --ambient-caps -all "$@"
"""


@pytest.mark.parametrize("kind", ["user", "mnt", "net", "pid"])
def test_where_no_namespaces_may_be_made_doctor_and_up_say_which_sysctl_it_is(
    netlab: Netlab, rootless: None, tmp_path: Path, kind: str
) -> None:
    """The sysctl is a user namespace's own: this test's."""
    skips.skip_unless_program("unshare")
    skips.skip_unless_program("setpriv")
    file = tmp_path / "topology.yaml"
    file.write_text(labs.TWO)
    inside = [
        "unshare",
        "--user",
        "--map-user=1000",
        "--map-group=1000",
        "--keep-caps",
        "sh",
        "-c",
        FORBIDDING.replace("KIND", kind),
        "sh",
    ]

    def said(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*inside, *netlab.argv(*arguments)]
        return subprocess.run(command, env=netlab.environment(), capture_output=True, text=True)

    sysctl = f"user.max_{kind}_namespaces"
    otherwise = "run netlab as root, or " if kind == "user" else ""
    hint = f"{sysctl} is 0: {otherwise}`{advice_for_users(f'sysctl {sysctl}=15000')}`"
    checks = json.loads(said("doctor", "--format", "json").stdout)["checks"]
    (amiss,) = [check for check in checks if check["ok"] is False]
    assert (amiss["name"], amiss["advice"]) == ("namespaces" if kind == "pid" else "user namespaces", hint)
    built = said("up", file)
    assert "No space left on device\n" in built.stderr
    if kind != "pid":  # told from within the lab's user namespace, whose own limit is another
        assert (built.returncode, built.stderr.rpartition("  hint: ")[2]) == (77, f"{hint}\n")


def advice_for_users(command: str) -> str:
    """What `as_root` makes of a command for an ordinary user."""
    return f"sudo {command}" if shutil.which("sudo") else f"su -c '{command}'"


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
