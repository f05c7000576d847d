"""Addresses that lead to a server elsewhere."""

import contextlib
import select
import socket
import threading


class Relay:
    """An address that may come to lead to another server; connections that are open stay where they are."""

    def __init__(self, port: int = 0) -> None:
        self.port, self.made = port, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"redis://{self.address}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.made += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.port))
        except OSError:
            client.close()
            return
        threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()
        _pass_on(client, server)


class CutLine(Relay):
    """A relay to a server that swallows replies, from a chosen request on, and hangs up."""

    def __init__(self, port: int) -> None:
        self.cut = b""
        super().__init__(port)

    def _serve(self, client: socket.socket) -> None:
        """What a client sends in one go is answered before it sends more: what comes after the request is its reply."""
        with client, socket.create_connection(("127.0.0.1", self.port)) as server:
            swallow = False
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    if not (data := ready.recv(1 << 20)):
                        return
                    if ready is client:
                        swallow = bool(self.cut) and self.cut in data
                        server.sendall(data)
                    elif not swallow:
                        client.sendall(data)
                    else:
                        self.cut = b""
                        _read_to_its_end(server)
                        return


def _read_to_its_end(server: socket.socket) -> None:
    server.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while server.recv(1 << 20):
            pass


def _pass_on(here: socket.socket, there: socket.socket) -> None:
    try:
        while data := here.recv(1 << 16):
            there.sendall(data)
    except OSError:
        pass
    there.close()
