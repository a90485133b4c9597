#!/bin/sh
# The lab dual-stack. Run as root, or as anyone in a shell with a /run, and an /etc to write to, of its own:
#   unshare -Urnm sh -c 'mount -t tmpfs none /run; cp -r /etc /run 2>/dev/null; mount --bind /run/etc /etc; exec sh'
# To remove it: for n in dual-stack-node-1 dual-stack-node-2 dual-stack-client dual-stack-server; do ip netns pids $n | xargs -r kill; ip netns del $n; rm -rf /etc/netns/$n; done
set -eu

# node-1: network namespace
ip netns add dual-stack-node-1

# node-2: network namespace
ip netns add dual-stack-node-2

# client: network namespace
ip netns add dual-stack-client

# server: network namespace
ip netns add dual-stack-server

# node-1: bridge cni0
ip -n dual-stack-node-1 link add cni0 address 02:62:a3:ac:5f:ae type bridge mcast_snooping 0

# node-2: bridge cni0
ip -n dual-stack-node-2 link add cni0 address 02:62:25:38:2d:00 type bridge mcast_snooping 0

# node-1: veth veth-client to client eth0
ip -n dual-stack-node-1 link add veth-client master cni0 numtxqueues 1 numrxqueues 1 type veth peer name eth0 netns dual-stack-client numtxqueues 1 numrxqueues 1

# node-2: veth veth-server to server eth0
ip -n dual-stack-node-2 link add veth-server master cni0 numtxqueues 1 numrxqueues 1 type veth peer name eth0 netns dual-stack-server numtxqueues 1 numrxqueues 1

# node-1: veth eth0 to node-2 eth0
ip -n dual-stack-node-1 link add eth0 numtxqueues 1 numrxqueues 1 type veth peer name eth0 netns dual-stack-node-2 numtxqueues 1 numrxqueues 1

# node-1: sysctl net.ipv4.ip_forward = 1
ip netns exec dual-stack-node-1 sysctl -qw net.ipv4.ip_forward=1

# node-1: sysctl net.ipv6.conf.all.forwarding = 1
ip netns exec dual-stack-node-1 sysctl -qw net.ipv6.conf.all.forwarding=1

# node-1: sysctl net.ipv4.conf.all.send_redirects = 0
ip netns exec dual-stack-node-1 sysctl -qw net.ipv4.conf.all.send_redirects=0

# node-1: sysctl net.ipv4.conf.cni0.send_redirects = 0
ip netns exec dual-stack-node-1 sysctl -qw net.ipv4.conf.cni0.send_redirects=0

# node-2: sysctl net.ipv4.ip_forward = 1
ip netns exec dual-stack-node-2 sysctl -qw net.ipv4.ip_forward=1

# node-2: sysctl net.ipv6.conf.all.forwarding = 1
ip netns exec dual-stack-node-2 sysctl -qw net.ipv6.conf.all.forwarding=1

# node-2: sysctl net.ipv4.conf.all.send_redirects = 0
ip netns exec dual-stack-node-2 sysctl -qw net.ipv4.conf.all.send_redirects=0

# node-2: sysctl net.ipv4.conf.cni0.send_redirects = 0
ip netns exec dual-stack-node-2 sysctl -qw net.ipv4.conf.cni0.send_redirects=0

# node-2: sysctl net.bridge.bridge-nf-call-iptables = 0 if it exists
ip netns exec dual-stack-node-2 sysctl -eqw net.bridge.bridge-nf-call-iptables=0

# node-2: sysctl net.bridge.bridge-nf-call-ip6tables = 0 if it exists
ip netns exec dual-stack-node-2 sysctl -eqw net.bridge.bridge-nf-call-ip6tables=0

# node-1: lo up
ip -n dual-stack-node-1 link set lo up

# node-1: cni0 up
ip -n dual-stack-node-1 link set cni0 up

# node-1: address 10.1.1.1/24 on cni0
ip -n dual-stack-node-1 addr add 10.1.1.1/24 dev cni0 broadcast +

# node-1: address fd00:1:1::1/64 on cni0
ip -n dual-stack-node-1 addr add fd00:1:1::1/64 dev cni0 nodad

# node-1: veth-client up
ip -n dual-stack-node-1 link set veth-client addrgenmode none
ip -n dual-stack-node-1 link set veth-client up

# node-1: eth0 up
ip -n dual-stack-node-1 link set eth0 up

# node-1: address 192.168.1.1/30 on eth0
ip -n dual-stack-node-1 addr add 192.168.1.1/30 dev eth0 broadcast +

# node-1: address fd00:10:255::1/64 on eth0
ip -n dual-stack-node-1 addr add fd00:10:255::1/64 dev eth0 nodad

# node-1: route 10.1.2.0/24 via 192.168.1.2
ip -n dual-stack-node-1 route add 10.1.2.0/24 via 192.168.1.2

# node-1: route fd00:1:2::/64 via fd00:10:255::2
ip -6 -n dual-stack-node-1 route add fd00:1:2::/64 via fd00:10:255::2

# node-1: route 10.96.0.10/32 dev cni0
ip -n dual-stack-node-1 route add 10.96.0.10/32 dev cni0

# node-1: route fd00:10:96::10/128 dev cni0
ip -6 -n dual-stack-node-1 route add fd00:10:96::10/128 dev cni0

# node-2: lo up
ip -n dual-stack-node-2 link set lo up

# node-2: cni0 up
ip -n dual-stack-node-2 link set cni0 up

# node-2: address 10.1.2.1/24 on cni0
ip -n dual-stack-node-2 addr add 10.1.2.1/24 dev cni0 broadcast +

# node-2: address fd00:1:2::1/64 on cni0
ip -n dual-stack-node-2 addr add fd00:1:2::1/64 dev cni0 nodad

# node-2: veth-server up
ip -n dual-stack-node-2 link set veth-server addrgenmode none
ip -n dual-stack-node-2 link set veth-server up

# node-2: eth0 up
ip -n dual-stack-node-2 link set eth0 up

# node-2: address 192.168.1.2/30 on eth0
ip -n dual-stack-node-2 addr add 192.168.1.2/30 dev eth0 broadcast +

# node-2: address fd00:10:255::2/64 on eth0
ip -n dual-stack-node-2 addr add fd00:10:255::2/64 dev eth0 nodad

# node-2: route 10.1.1.0/24 via 192.168.1.1
ip -n dual-stack-node-2 route add 10.1.1.0/24 via 192.168.1.1

# node-2: route fd00:1:1::/64 via fd00:10:255::1
ip -6 -n dual-stack-node-2 route add fd00:1:1::/64 via fd00:10:255::1

# node-2: route 10.96.0.10/32 dev cni0
ip -n dual-stack-node-2 route add 10.96.0.10/32 dev cni0

# node-2: route fd00:10:96::10/128 dev cni0
ip -6 -n dual-stack-node-2 route add fd00:10:96::10/128 dev cni0

# client: lo up
ip -n dual-stack-client link set lo up

# client: eth0 up
ip -n dual-stack-client link set eth0 up

# client: address 10.1.1.2/24 on eth0
ip -n dual-stack-client addr add 10.1.1.2/24 dev eth0 broadcast +

# client: address fd00:1:1::2/64 on eth0
ip -n dual-stack-client addr add fd00:1:1::2/64 dev eth0 nodad

# client: route default via 10.1.1.1
ip -n dual-stack-client route add default via 10.1.1.1

# client: route default via fd00:1:1::1
ip -6 -n dual-stack-client route add default via fd00:1:1::1

# server: lo up
ip -n dual-stack-server link set lo up

# server: eth0 up
ip -n dual-stack-server link set eth0 up

# server: address 10.1.2.2/24 on eth0
ip -n dual-stack-server addr add 10.1.2.2/24 dev eth0 broadcast +

# server: address fd00:1:2::2/64 on eth0
ip -n dual-stack-server addr add fd00:1:2::2/64 dev eth0 nodad

# server: route default via 10.1.2.1
ip -n dual-stack-server route add default via 10.1.2.1

# server: route default via fd00:1:2::1
ip -6 -n dual-stack-server route add default via fd00:1:2::1

# node-1: kube-proxy's rules
ip netns exec dual-stack-node-1 nft -f - <<'RULES'
table ip filter {
	chain INPUT {
		type filter hook input priority 0; policy accept;
		counter jump KUBE-FIREWALL
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		counter jump KUBE-NODEPORTS comment "kubernetes health check service ports"
		ct state new counter jump KUBE-EXTERNAL-SERVICES comment "kubernetes externally-visible service portals"
	}
	chain FORWARD {
		type filter hook forward priority 0; policy accept;
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		counter jump KUBE-FORWARD comment "kubernetes forwarding rules"
		ct state new counter jump KUBE-SERVICES comment "kubernetes service portals"
		ct state new counter jump KUBE-EXTERNAL-SERVICES comment "kubernetes externally-visible service portals"
	}
	chain OUTPUT {
		type filter hook output priority 0; policy accept;
		counter jump KUBE-FIREWALL
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		ct state new counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain KUBE-SERVICES {
	}
	chain KUBE-EXTERNAL-SERVICES {
	}
	chain KUBE-FORWARD {
		meta mark & 0x4000 == 0x4000 counter accept comment "kubernetes forwarding rules"
		ct state related,established counter accept comment "kubernetes forwarding conntrack rule"
	}
	chain KUBE-NODEPORTS {
	}
	chain KUBE-PROXY-FIREWALL {
	}
	chain KUBE-FIREWALL {
		ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 ct state != { related, established } ct status & dnat == 0 counter drop comment "block incoming localnet connections"
	}
}
table ip nat {
	chain PREROUTING {
		type nat hook prerouting priority -100; policy accept;
		counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain OUTPUT {
		type nat hook output priority -100; policy accept;
		counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain POSTROUTING {
		type nat hook postrouting priority 100; policy accept;
		counter jump KUBE-POSTROUTING comment "kubernetes postrouting rules"
	}
	chain KUBE-SERVICES {
		ip daddr 10.96.0.10 tcp dport 80 counter jump KUBE-SVC-CDGGSHYLG3RE2FKL comment "default/web:http cluster IP"
		ip daddr 10.96.0.10 udp dport 7 counter jump KUBE-SVC-J2WSFT5GOQDV4646 comment "default/web:echo cluster IP"
		fib daddr type local counter jump KUBE-NODEPORTS comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
	}
	chain KUBE-NODEPORTS {
	}
	chain KUBE-POSTROUTING {
		meta mark & 0x4000 != 0x4000 counter return
		counter meta mark set meta mark ^ 0x4000
		counter masquerade fully-random comment "kubernetes service traffic requiring SNAT"
	}
	chain KUBE-MARK-MASQ {
		counter meta mark set meta mark | 0x4000
	}
	chain KUBE-OFF-CLUSTER {
		ip saddr 10.1.1.0/24 counter return
		ip saddr 10.1.2.0/24 counter return
		counter jump KUBE-MARK-MASQ
	}
	chain KUBE-SVC-CDGGSHYLG3RE2FKL {
		ip daddr 10.96.0.10 tcp dport 80 counter jump KUBE-OFF-CLUSTER comment "default/web:http cluster IP"
		counter jump KUBE-SEP-OXMUKF3NB3EHK6OQ comment "default/web:http -> 10.1.2.2:8080"
	}
	chain KUBE-SEP-OXMUKF3NB3EHK6OQ {
		ip saddr 10.1.2.2 counter jump KUBE-MARK-MASQ comment "default/web:http"
		meta l4proto tcp counter dnat to 10.1.2.2:8080 comment "default/web:http"
	}
	chain KUBE-SVC-J2WSFT5GOQDV4646 {
		ip daddr 10.96.0.10 udp dport 7 counter jump KUBE-OFF-CLUSTER comment "default/web:echo cluster IP"
		counter jump KUBE-SEP-IAWDIZ6UBWZGW62I comment "default/web:echo -> 10.1.2.2:7"
	}
	chain KUBE-SEP-IAWDIZ6UBWZGW62I {
		ip saddr 10.1.2.2 counter jump KUBE-MARK-MASQ comment "default/web:echo"
		meta l4proto udp counter dnat to 10.1.2.2:7 comment "default/web:echo"
	}
}
table ip6 filter {
	chain INPUT {
		type filter hook input priority 0; policy accept;
		counter jump KUBE-FIREWALL
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		counter jump KUBE-NODEPORTS comment "kubernetes health check service ports"
		ct state new counter jump KUBE-EXTERNAL-SERVICES comment "kubernetes externally-visible service portals"
	}
	chain FORWARD {
		type filter hook forward priority 0; policy accept;
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		counter jump KUBE-FORWARD comment "kubernetes forwarding rules"
		ct state new counter jump KUBE-SERVICES comment "kubernetes service portals"
		ct state new counter jump KUBE-EXTERNAL-SERVICES comment "kubernetes externally-visible service portals"
	}
	chain OUTPUT {
		type filter hook output priority 0; policy accept;
		counter jump KUBE-FIREWALL
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		ct state new counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain KUBE-SERVICES {
	}
	chain KUBE-EXTERNAL-SERVICES {
	}
	chain KUBE-FORWARD {
		meta mark & 0x4000 == 0x4000 counter accept comment "kubernetes forwarding rules"
		ct state related,established counter accept comment "kubernetes forwarding conntrack rule"
	}
	chain KUBE-NODEPORTS {
	}
	chain KUBE-PROXY-FIREWALL {
	}
	chain KUBE-FIREWALL {
	}
}
table ip6 nat {
	chain PREROUTING {
		type nat hook prerouting priority -100; policy accept;
		counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain OUTPUT {
		type nat hook output priority -100; policy accept;
		counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain POSTROUTING {
		type nat hook postrouting priority 100; policy accept;
		counter jump KUBE-POSTROUTING comment "kubernetes postrouting rules"
	}
	chain KUBE-SERVICES {
		ip6 daddr fd00:10:96::10 tcp dport 80 counter jump KUBE-SVC-CDGGSHYLG3RE2FKL comment "default/web:http cluster IP"
		ip6 daddr fd00:10:96::10 udp dport 7 counter jump KUBE-SVC-J2WSFT5GOQDV4646 comment "default/web:echo cluster IP"
		ip6 daddr != ::1/128 fib daddr type local counter jump KUBE-NODEPORTS comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
	}
	chain KUBE-NODEPORTS {
	}
	chain KUBE-POSTROUTING {
		meta mark & 0x4000 != 0x4000 counter return
		counter meta mark set meta mark ^ 0x4000
		counter masquerade fully-random comment "kubernetes service traffic requiring SNAT"
	}
	chain KUBE-MARK-MASQ {
		counter meta mark set meta mark | 0x4000
	}
	chain KUBE-OFF-CLUSTER {
		ip6 saddr fd00:1:1::/64 counter return
		ip6 saddr fd00:1:2::/64 counter return
		counter jump KUBE-MARK-MASQ
	}
	chain KUBE-SVC-CDGGSHYLG3RE2FKL {
		ip6 daddr fd00:10:96::10 tcp dport 80 counter jump KUBE-OFF-CLUSTER comment "default/web:http cluster IP"
		counter jump KUBE-SEP-LHN2VUVUUJYOECK5 comment "default/web:http -> [fd00:1:2::2]:8080"
	}
	chain KUBE-SEP-LHN2VUVUUJYOECK5 {
		ip6 saddr fd00:1:2::2 counter jump KUBE-MARK-MASQ comment "default/web:http"
		meta l4proto tcp counter dnat to [fd00:1:2::2]:8080 comment "default/web:http"
	}
	chain KUBE-SVC-J2WSFT5GOQDV4646 {
		ip6 daddr fd00:10:96::10 udp dport 7 counter jump KUBE-OFF-CLUSTER comment "default/web:echo cluster IP"
		counter jump KUBE-SEP-C4YUEXRVIDN6GXDW comment "default/web:echo -> [fd00:1:2::2]:7"
	}
	chain KUBE-SEP-C4YUEXRVIDN6GXDW {
		ip6 saddr fd00:1:2::2 counter jump KUBE-MARK-MASQ comment "default/web:echo"
		meta l4proto udp counter dnat to [fd00:1:2::2]:7 comment "default/web:echo"
	}
}
RULES

# node-2: kube-proxy's rules
ip netns exec dual-stack-node-2 nft -f - <<'RULES'
table ip filter {
	chain INPUT {
		type filter hook input priority 0; policy accept;
		counter jump KUBE-FIREWALL
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		counter jump KUBE-NODEPORTS comment "kubernetes health check service ports"
		ct state new counter jump KUBE-EXTERNAL-SERVICES comment "kubernetes externally-visible service portals"
	}
	chain FORWARD {
		type filter hook forward priority 0; policy accept;
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		counter jump KUBE-FORWARD comment "kubernetes forwarding rules"
		ct state new counter jump KUBE-SERVICES comment "kubernetes service portals"
		ct state new counter jump KUBE-EXTERNAL-SERVICES comment "kubernetes externally-visible service portals"
	}
	chain OUTPUT {
		type filter hook output priority 0; policy accept;
		counter jump KUBE-FIREWALL
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		ct state new counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain KUBE-SERVICES {
	}
	chain KUBE-EXTERNAL-SERVICES {
	}
	chain KUBE-FORWARD {
		meta mark & 0x4000 == 0x4000 counter accept comment "kubernetes forwarding rules"
		ct state related,established counter accept comment "kubernetes forwarding conntrack rule"
	}
	chain KUBE-NODEPORTS {
	}
	chain KUBE-PROXY-FIREWALL {
	}
	chain KUBE-FIREWALL {
		ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 ct state != { related, established } ct status & dnat == 0 counter drop comment "block incoming localnet connections"
	}
}
table ip nat {
	chain PREROUTING {
		type nat hook prerouting priority -100; policy accept;
		counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain OUTPUT {
		type nat hook output priority -100; policy accept;
		counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain POSTROUTING {
		type nat hook postrouting priority 100; policy accept;
		counter jump KUBE-POSTROUTING comment "kubernetes postrouting rules"
	}
	chain KUBE-SERVICES {
		ip daddr 10.96.0.10 tcp dport 80 counter jump KUBE-SVC-CDGGSHYLG3RE2FKL comment "default/web:http cluster IP"
		ip daddr 10.96.0.10 udp dport 7 counter jump KUBE-SVC-J2WSFT5GOQDV4646 comment "default/web:echo cluster IP"
		fib daddr type local counter jump KUBE-NODEPORTS comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
	}
	chain KUBE-NODEPORTS {
	}
	chain KUBE-POSTROUTING {
		meta mark & 0x4000 != 0x4000 counter return
		counter meta mark set meta mark ^ 0x4000
		counter masquerade fully-random comment "kubernetes service traffic requiring SNAT"
	}
	chain KUBE-MARK-MASQ {
		counter meta mark set meta mark | 0x4000
	}
	chain KUBE-OFF-CLUSTER {
		ip saddr 10.1.1.0/24 counter return
		ip saddr 10.1.2.0/24 counter return
		counter jump KUBE-MARK-MASQ
	}
	chain KUBE-SVC-CDGGSHYLG3RE2FKL {
		ip daddr 10.96.0.10 tcp dport 80 counter jump KUBE-OFF-CLUSTER comment "default/web:http cluster IP"
		counter jump KUBE-SEP-OXMUKF3NB3EHK6OQ comment "default/web:http -> 10.1.2.2:8080"
	}
	chain KUBE-SEP-OXMUKF3NB3EHK6OQ {
		ip saddr 10.1.2.2 counter jump KUBE-MARK-MASQ comment "default/web:http"
		meta l4proto tcp counter dnat to 10.1.2.2:8080 comment "default/web:http"
	}
	chain KUBE-SVC-J2WSFT5GOQDV4646 {
		ip daddr 10.96.0.10 udp dport 7 counter jump KUBE-OFF-CLUSTER comment "default/web:echo cluster IP"
		counter jump KUBE-SEP-IAWDIZ6UBWZGW62I comment "default/web:echo -> 10.1.2.2:7"
	}
	chain KUBE-SEP-IAWDIZ6UBWZGW62I {
		ip saddr 10.1.2.2 counter jump KUBE-MARK-MASQ comment "default/web:echo"
		meta l4proto udp counter dnat to 10.1.2.2:7 comment "default/web:echo"
	}
}
table ip6 filter {
	chain INPUT {
		type filter hook input priority 0; policy accept;
		counter jump KUBE-FIREWALL
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		counter jump KUBE-NODEPORTS comment "kubernetes health check service ports"
		ct state new counter jump KUBE-EXTERNAL-SERVICES comment "kubernetes externally-visible service portals"
	}
	chain FORWARD {
		type filter hook forward priority 0; policy accept;
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		counter jump KUBE-FORWARD comment "kubernetes forwarding rules"
		ct state new counter jump KUBE-SERVICES comment "kubernetes service portals"
		ct state new counter jump KUBE-EXTERNAL-SERVICES comment "kubernetes externally-visible service portals"
	}
	chain OUTPUT {
		type filter hook output priority 0; policy accept;
		counter jump KUBE-FIREWALL
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		ct state new counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain KUBE-SERVICES {
	}
	chain KUBE-EXTERNAL-SERVICES {
	}
	chain KUBE-FORWARD {
		meta mark & 0x4000 == 0x4000 counter accept comment "kubernetes forwarding rules"
		ct state related,established counter accept comment "kubernetes forwarding conntrack rule"
	}
	chain KUBE-NODEPORTS {
	}
	chain KUBE-PROXY-FIREWALL {
	}
	chain KUBE-FIREWALL {
	}
}
table ip6 nat {
	chain PREROUTING {
		type nat hook prerouting priority -100; policy accept;
		counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain OUTPUT {
		type nat hook output priority -100; policy accept;
		counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain POSTROUTING {
		type nat hook postrouting priority 100; policy accept;
		counter jump KUBE-POSTROUTING comment "kubernetes postrouting rules"
	}
	chain KUBE-SERVICES {
		ip6 daddr fd00:10:96::10 tcp dport 80 counter jump KUBE-SVC-CDGGSHYLG3RE2FKL comment "default/web:http cluster IP"
		ip6 daddr fd00:10:96::10 udp dport 7 counter jump KUBE-SVC-J2WSFT5GOQDV4646 comment "default/web:echo cluster IP"
		ip6 daddr != ::1/128 fib daddr type local counter jump KUBE-NODEPORTS comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
	}
	chain KUBE-NODEPORTS {
	}
	chain KUBE-POSTROUTING {
		meta mark & 0x4000 != 0x4000 counter return
		counter meta mark set meta mark ^ 0x4000
		counter masquerade fully-random comment "kubernetes service traffic requiring SNAT"
	}
	chain KUBE-MARK-MASQ {
		counter meta mark set meta mark | 0x4000
	}
	chain KUBE-OFF-CLUSTER {
		ip6 saddr fd00:1:1::/64 counter return
		ip6 saddr fd00:1:2::/64 counter return
		counter jump KUBE-MARK-MASQ
	}
	chain KUBE-SVC-CDGGSHYLG3RE2FKL {
		ip6 daddr fd00:10:96::10 tcp dport 80 counter jump KUBE-OFF-CLUSTER comment "default/web:http cluster IP"
		counter jump KUBE-SEP-LHN2VUVUUJYOECK5 comment "default/web:http -> [fd00:1:2::2]:8080"
	}
	chain KUBE-SEP-LHN2VUVUUJYOECK5 {
		ip6 saddr fd00:1:2::2 counter jump KUBE-MARK-MASQ comment "default/web:http"
		meta l4proto tcp counter dnat to [fd00:1:2::2]:8080 comment "default/web:http"
	}
	chain KUBE-SVC-J2WSFT5GOQDV4646 {
		ip6 daddr fd00:10:96::10 udp dport 7 counter jump KUBE-OFF-CLUSTER comment "default/web:echo cluster IP"
		counter jump KUBE-SEP-C4YUEXRVIDN6GXDW comment "default/web:echo -> [fd00:1:2::2]:7"
	}
	chain KUBE-SEP-C4YUEXRVIDN6GXDW {
		ip6 saddr fd00:1:2::2 counter jump KUBE-MARK-MASQ comment "default/web:echo"
		meta l4proto udp counter dnat to [fd00:1:2::2]:7 comment "default/web:echo"
	}
}
RULES

# /etc/hosts of the lab
hosts=$(cat <<'HOSTS'
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
192.168.1.1 node-1
fd00:10:255::1 node-1
192.168.1.2 node-2
fd00:10:255::2 node-2
10.1.1.2 client
fd00:1:1::2 client
10.1.2.2 server
fd00:1:2::2 server
10.96.0.10 web web.default web.default.svc.cluster.local
fd00:10:96::10 web web.default web.default.svc.cluster.local
HOSTS
)
for netns in dual-stack-node-1 dual-stack-node-2 dual-stack-client dual-stack-server; do
  mkdir -p "/etc/netns/$netns"
  echo "$hosts" >"/etc/netns/$netns/hosts"
  [ ! -e /etc/resolv.conf ] || : >"/etc/netns/$netns/resolv.conf"
done

# server: program http: python3 -c 'import socket …
setsid ip netns exec dual-stack-server python3 -c 'import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Both(ThreadingHTTPServer):
    address_family = socket.AF_INET6  # takes IPv4 too: net.ipv6.bindv6only is 0
class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"hello, {self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
Both(("::", 8080), Hello).serve_forever()
' >/tmp/dual-stack-server.http.log 2>&1 </dev/null &
timeout 10 sh -c 'until ip netns exec dual-stack-server ss -Hltn '"'"'sport = :8080'"'"' | grep -q .; do sleep 0.1; done'

# server: program echo: python3 -u -c 'import socket …
setsid ip netns exec dual-stack-server python3 -u -c 'import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("::", 7))
print("listening")
while True:
    data, client = server.recvfrom(65535)
    server.sendto(data, client)
' >/tmp/dual-stack-server.echo.log 2>&1 </dev/null &
timeout 10 sh -c 'until grep -sqE listening /tmp/dual-stack-server.echo.log; do sleep 0.1; done'
