#!/usr/bin/env bash
# The lab as a careful script builds it: one `ip -batch` a namespace, one `nft -f`. batch.sh up-t3 | up-star PODS | down
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

up_star() {
  local i pods=$1 node=yb-node
  { echo "netns add $node"; for ((i = 0; i < pods; i++)); do echo "netns add yb-pod$i"; done; } | ip -batch -
  {
    echo "link set lo up
link add br0 up type bridge
addr add 10.244.0.1/16 dev br0"
    for ((i = 0; i < pods; i++)); do
      echo "link add veth$i up master br0 numtxqueues 1 numrxqueues 1 type veth peer name eth0 numtxqueues 1 numrxqueues 1 netns yb-pod$i"
    done
  } | ip -n $node -batch -
  # shellcheck disable=SC2016 # $1 is the inner shell's
  ip netns exec $node sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward && exec nft -f "$1"' sh "$here/rules.nft"
  for ((i = 0; i < pods; i++)); do
    ip -n yb-pod$i -batch - <<POD
link set lo up
link set eth0 up
addr add 10.244.$(((i + 10) / 256)).$(((i + 10) % 256))/16 dev eth0
route add default via 10.244.0.1
POD
  done
}

case ${1-} in
  up-t3) up_star 2 ;;
  up-star) up_star "$2" ;;
  down) for name in /run/netns/yb-*; do echo "netns del ${name##*/}"; done | ip -batch - ;;
  *) echo "usage: $0 up-t3 | up-star PODS | down" >&2; exit 2 ;;
esac
