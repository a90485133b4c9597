#!/usr/bin/env bash
# The lab as most scripts build it: one process an action, each veth pair made here and its ends moved to their places.
# naive.sh up-t3 | up-star PODS | down
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

up_star() {
  local i node=yn-node pod address
  ip netns add $node
  ip -n $node link set lo up
  ip netns exec $node sysctl -qw net.ipv4.ip_forward=1
  ip -n $node link add br0 type bridge
  ip -n $node addr add 10.244.0.1/16 dev br0
  ip -n $node link set br0 up
  ip netns exec $node nft -f "$here/rules.nft"
  for ((i = 0; i < $1; i++)); do
    pod=yn-pod$i address=10.244.$(((i + 10) / 256)).$(((i + 10) % 256))
    ip netns add $pod
    ip -n $pod link set lo up
    ip link add yn-a$i type veth peer name yn-b$i
    ip link set yn-a$i netns $node
    ip link set yn-b$i netns $pod
    ip -n $node link set yn-a$i master br0
    ip -n $node link set yn-a$i up
    ip -n $pod link set yn-b$i name eth0
    ip -n $pod addr add $address/16 dev eth0
    ip -n $pod link set eth0 up
    ip -n $pod route add default via 10.244.0.1
  done
}

case ${1-} in
  up-t3) up_star 2 ;;
  up-star) up_star "$2" ;;
  down) for name in /run/netns/yn-*; do ip netns del "${name##*/}"; done ;;
  *) echo "usage: $0 up-t3 | up-star PODS | down" >&2; exit 2 ;;
esac
