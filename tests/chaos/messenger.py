"""For the test of cuts: a line of a server's name on stdin sends it a word; what any of them answers is printed."""

import os
import selectors
import socket
import sys

from infra.settings import load_settings


def main() -> None:
    settings = load_settings()
    links, selector = {}, selectors.DefaultSelector()
    for name, address in (("kafka", settings.kafka), ("cassandra", settings.cassandra)):
        host, _, port = address.partition(":")
        links[name] = socket.create_connection((host, int(port)))
        selector.register(links[name], selectors.EVENT_READ, name)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("connected", flush=True)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                # Not by the buffered file: lines that it has read already, select doesn't tell of.
                for asked in os.read(sys.stdin.fileno(), 4096).decode().split():
                    links[asked].sendall(b"word")
            else:
                answer = links[key.data].recv(64)
                print(f"{key.data} {answer.decode()}", flush=True)


if __name__ == "__main__":
    main()
