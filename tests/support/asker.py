"""Asks services, all at the same time: `asker.py '[["TCP", "10.96.0.1", 80, 10], …]'` prints what was answered to each.

A question is protocol, address, port, how often, for how many seconds to wait. An answer is the sorted list, without
doubles, of the greetings (see greeter.py), of "refused", "silence", and what else the kernel said.
"""

import json
import os
import random
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import sctp

KINDS = {"TCP": (socket.SOCK_STREAM, 0), "UDP": (socket.SOCK_DGRAM, 0), "SCTP": (socket.SOCK_RAW, socket.IPPROTO_SCTP)}


def greeting(protocol: str, address: str, port: int, wait_s: float) -> str:
    """One connection's, one datagram's, or what the answer to one INIT says."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, *KINDS[protocol]) as asking:
        asking.settimeout(wait_s)
        try:
            asking.connect((address, port))
            if protocol == "SCTP":
                return greeting_by_sctp(asking, port)
            if protocol == "UDP":
                asking.send(b"?")
            return asking.recv(999).decode()
        except TimeoutError:
            return "silence"
        except (ConnectionRefusedError, PermissionError):
            # EPERM is what send() says where the node's own output hook refuses the datagram, or drops it.
            return "refused"
        except OSError as error:
            return os.strerror(error.errno or 0)


def greeting_by_sctp(raw: socket.socket, port: int) -> str:
    """The text of the first INIT ACK that is for us; the kernel lets pass only what the address asked has sent."""
    asked = sctp.Packet(random.randrange(1 << 15, 1 << 16), port, 0, sctp.INIT, random.randrange(1, 1 << 32))
    raw.send(asked.packed())
    while True:
        told, _ = sctp.receive(raw)
        if told[:4] == (port, asked.sport, asked.initiate_tag, sctp.INIT_ACK):
            return told.text


def answers(protocol: str, address: str, port: int, times: int, wait_s: float) -> list[str]:
    """What so many questions one after the other bring; the first silence is the last question."""
    found: set[str] = set()
    for _ in range(times):
        found.add(greeting(protocol, address, port, wait_s))
        if "silence" in found:
            break
    return sorted(found)


if __name__ == "__main__":
    questions = json.loads(sys.argv[1])
    with ThreadPoolExecutor(len(questions)) as pool:
        json.dump(list(pool.map(lambda question: answers(*question), questions)), sys.stdout)
