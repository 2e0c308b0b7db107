"""A service that starts slowly: `python slow_service.py KIND PORT`; it answers on PORT as Redis does, or never.

It says what it does on stdout, and works for what it says: processor time is what a start makes progress by.
"""

from __future__ import annotations

import socketserver
import sys
import time

#: Longer than the test's patience, in steps that are shorter than what it calls stuck.
STARTS_FOR_S = 6.0
STEP_S = 0.3


class Answers(socketserver.StreamRequestHandler):
    """AUTH and PING of Redis' protocol, inline."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(b"+PONG\r\n" if line.startswith(b"PING") else b"+OK\r\n")


class Server(socketserver.ThreadingTCPServer):
    """Ends with its process."""

    allow_reuse_address = True
    daemon_threads = True


def work(cpu_s: float) -> None:
    """Take so much processor time."""
    began = time.process_time()
    while time.process_time() - began < cpu_s:
        pass


def start_slowly(for_s: float) -> None:
    """A start that gets on, step by step."""
    began = time.monotonic()
    step = 0
    while time.monotonic() - began < for_s:
        step += 1
        print(f"step {step}", flush=True)
        work(STEP_S)


def main() -> None:
    """Be what the first argument says."""
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "slow":
        start_slowly(STARTS_FOR_S)
        with Server(("127.0.0.1", port), Answers) as server:
            print("ready", flush=True)
            server.serve_forever()
    elif kind == "endless":
        start_slowly(3600)
    elif kind == "stuck":
        print("waiting for what never comes", flush=True)
        time.sleep(3600)
    elif kind == "ending":
        print("beginning anew", flush=True)
        work(STEP_S / 3)
    else:
        sys.exit(f"no kind of start is called {kind!r}")


if __name__ == "__main__":
    main()
