"""What happens in the machine, as shell scripts: it sees this machine's files, and writes into a layer of its own."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

TAG = "netlab"
"""What the machine's file system is called in the guest."""

STDOUT, STDERR, STATUS, FILES, ALIVE = "stdout", "stderr", "status", "files.tar", "alive"
"""The files of results: what the command printed, its exit status, what it wrote, and the guest's clock."""

_REFERENCE_MS = 10
"""How long the loop below takes on a machine for which netlab's deadlines were chosen."""

_LOOP = "from time import perf_counter as t; a = t(); sum(range(10**6)); print(max(1, round((t() - a) * 1e3 / {})))"

MODULES = """
nf_tables nf_conntrack nf_conntrack_netlink nf_conntrack_ftp nf_nat nf_log_syslog nfnetlink_log
nft_chain_nat nft_compat nft_counter nft_ct nft_fib_inet nft_fib_ipv4 nft_fib_ipv6 nft_hash nft_limit nft_log nft_masq
nft_nat nft_numgen nft_objref nft_redir nft_reject_inet nft_reject_ipv4 nft_reject_ipv6 nft_socket nft_tproxy
xt_conntrack xt_comment xt_mark xt_nat xt_MASQUERADE xt_REDIRECT xt_statistic xt_addrtype xt_tcpudp xt_recent
ipt_REJECT ip6t_REJECT iptable_nat ip6table_nat
veth bridge dummy 8021q bonding vxlan vrf macvlan ipvlan ip_gre wireguard tun
sch_netem sch_htb sch_tbf sch_ingress cls_bpf act_bpf inet_diag tcp_diag udp_diag sctp
"""
"""What is loaded at once: on demand, each takes a process of its own. br_netfilter changes what bridges do: not it."""


class Job(NamedTuple):
    """A command for the guest, and where it is to run; share is the directory of results, the same in the guest.

    slower is the environment's variable for how many times as slow the guest is.
    """

    argv: Sequence[str]
    directory: PurePath
    environment: Mapping[str, str]
    share: PurePath
    modules: PurePath | None
    python: PurePath
    slower: str


def script(job: Job) -> str:
    """What the guest's first shell runs, as root."""
    share = shlex.quote(str(job.share))
    bound = ""
    if job.modules is not None:
        release = shlex.quote(f"/lib/modules/{job.modules.name}")
        bound = f'mkdir -p "$new"{release}\nmount --bind {shlex.quote(str(job.modules))} "$new"{release}\n'
    return f"""\
set -e
new=/run/netlab/new
mkdir -p /run/netlab
mount -t tmpfs -o size=75% tmpfs /run/netlab
mkdir $new /run/netlab/machine /run/netlab/upper /run/netlab/work
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=524288 {TAG} /run/netlab/machine
modprobe -q overlay || insmod {shlex.quote(f"{job.modules}/kernel/fs/overlayfs")}/overlay.ko* || true
mount -t overlay overlay -o lowerdir=/run/netlab/machine,upperdir=/run/netlab/upper,workdir=/run/netlab/work $new
{bound}for each in proc sys dev; do mount --rbind /$each $new/$each; done
mount -t tmpfs tmpfs $new/run
mkdir -p $new/run/netlab $new{share}
mount --bind /run/netlab/upper $new/run/netlab
mount --bind {share} $new{share}
cd $new
pivot_root . mnt
exec chroot . /bin/sh {share}/inside.sh <&0
"""


def inside(job: Job) -> str:
    """What runs once the file system is there: the command, and what tells of it."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(job.environment.items()))
    share, here = shlex.quote(str(job.share)), shlex.quote(str(job.directory))
    upper = shlex.quote(f"/run/netlab{job.directory}")
    return f"""\
cd {share}
echo 4 >/proc/sys/kernel/printk
(while :; do cat /proc/uptime >{ALIVE}; sleep 1; done) &
ip link set lo up
modprobe -aq {" ".join(MODULES.split())} || true
{exports}export {job.slower}=$({shlex.quote(str(job.python))} -S -c {shlex.quote(_LOOP.format(_REFERENCE_MS))})
cd {here}
{shlex.join(job.argv)} >{share}/{STDOUT} 2>{share}/{STDERR} </dev/null
status=$?
if cd {upper} 2>/dev/null; then
  find . -name __pycache__ -prune -o \\( -type f -o -type l -o -type d -empty \\) -print0 |
    tar -c --null --no-recursion -T - -f {share}/{FILES}
fi
cd {share}
echo $status >{STATUS}.part
sync
mv {STATUS}.part {STATUS}
"""
