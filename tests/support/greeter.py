"""Serves port 8080 by the name NAME: tells each client that name, and the client's address as it is seen here.

TCP, UDP and SCTP (see sctp.py) of both families. Usage: `greeter.py NAME`.
"""

import socket
import socketserver
import sys
import threading

import sctp

PORT = 8080


class Greeter(socketserver.BaseRequestHandler):
    """Answers and is done."""

    def handle(self) -> None:
        greeting = f"{sys.argv[1]} {self.client_address[0].removeprefix('::ffff:')}".encode()
        if isinstance(self.request, tuple):
            self.request[1].sendto(greeting, self.client_address)
        else:
            self.request.sendall(greeting)


class Tcp(socketserver.ThreadingTCPServer):
    """Both families on one socket."""

    address_family, daemon_threads, request_queue_size = socket.AF_INET6, True, 128


class Udp(socketserver.ThreadingUDPServer):
    """Both families on one socket."""

    address_family, daemon_threads = socket.AF_INET6, True


def greet_by_sctp(family: socket.AddressFamily) -> None:
    """Answer each INIT with an INIT ACK."""
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_SCTP) as raw:
        while True:
            asked, address = sctp.receive(raw)
            if (asked.chunk, asked.dport) == (sctp.INIT, PORT):
                text = f"{sys.argv[1]} {address}"
                answer = sctp.Packet(asked.dport, asked.sport, asked.initiate_tag, sctp.INIT_ACK, 1, text)
                raw.sendto(answer.packed(), (address, 0))


if __name__ == "__main__":
    for kind in (Udp, Tcp):
        threading.Thread(target=kind(("::", PORT), Greeter).serve_forever).start()
    for family in (socket.AF_INET, socket.AF_INET6):
        threading.Thread(target=greet_by_sctp, args=(family,)).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
