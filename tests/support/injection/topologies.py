"""The labs that faults are injected into: small, and with one of everything that a step may be about."""

LAB = "faults"

SMALL = """
namespaces:
  client: {}
  server: {}
links:
  - ends: [client, server]
"""

CLUSTER = """
namespaces:
  node: {role: node}
  client:
    role: pod
    sysctls: {net.ipv4.tcp_rmem: 4096 8192 8192}
    routes: [{to: 203.0.113.0/24, via: 10.0.0.1}]
    tables: {inet tour: 'chain in { type filter hook input priority 0; iif eth0 counter; }'}
  server:
    role: pod
    programs: [{name: sleeper, command: sleep 1000, ready: {command: "true"}}]
  other: {role: pod}
bridges:
  - name: cni0
    netns: node
    addresses: 10.0.0.1/24
    ports:
      - {netns: client, addresses: 10.0.0.2/24, mtu: 1400}
      - {netns: server, addresses: 10.0.0.3/24}
      - {netns: other, addresses: 10.0.0.4/24}
services:
  web: {cluster_ip: 10.96.0.1, port: 80, endpoints: [server]}
"""

CHANGED = """
namespaces:
  node: {role: node}
  client:
    role: pod
    sysctls: {net.ipv4.tcp_rmem: 4096 16384 16384}
    routes: [{to: 198.51.100.0/24, via: 10.0.0.1}]
    tables: {inet tour: 'chain in { type filter hook input priority 0; iif eth0 accept; }'}
  server:
    role: pod
    programs: [{name: sleeper, command: sleep 2000, ready: {command: "true"}}]
  third: {role: pod}
bridges:
  - name: cni0
    netns: node
    addresses: 10.0.0.1/24
    ports:
      - {netns: client, addresses: 10.0.0.9/24}
      - {netns: server, addresses: 10.0.0.3/24}
      - {netns: third, addresses: 10.0.0.5/24}
services:
  web: {cluster_ip: 10.96.0.2, port: 81, endpoints: [server, third]}
"""
"""CLUSTER with another address, route, MTU, sysctl, table, program, Service, and a namespace for another."""

EXPERIMENT = """
claim: A connection is made and ends.
topology: cluster.yaml
client: client
service: web
payload_bytes: 1000
steps:
  - connect
  - finish
expect:
  plain: completed
"""
