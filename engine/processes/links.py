"""Connections between the main process and each other one, over which they wait for each other.

A collective has a time limit, since it cannot tell a slow process from one that hangs. A connection needs
none: it breaks when the process at its other end is gone.
"""

import os
import secrets
import socket
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import wait

from engine.errors import UserError
from engine.records.console import warn

REMARK_AFTER = timedelta(minutes=5)
_CONNECT_SECONDS, _GREETING_SECONDS = 60.0, 5.0
_TOKEN_BYTES, _RANK_BYTES = 16, 4
Address = tuple[int, bytes]  # port; token that tells a process of this run from any other program
# A machine that lost its power closes no connection: it is noticed after about three minutes.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 6}


class ProcessLost(UserError):
    """Another process of the run ended while this one waited for it, or cannot be reached."""

    on_every_process = False


class Links:
    """One process's connections: the main process has one to each other, the others one to the main process.

    `links` are connected sockets by the rank at their other end.
    """

    def __init__(self, rank: int, links: dict[int, socket.socket]) -> None:
        self._rank, self._links = rank, links
        for link in links.values():
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option, value in _KEEP_ALIVE.items():
                if hasattr(socket, option):  # macOS has other names
                    link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        # A loading process that outlives this one must not keep the connections open.
        os.register_at_fork(after_in_child=self.close)

    def close(self) -> None:
        for link in self._links.values():
            link.close()

    def meet(self, what: str) -> None:
        """Wait until all processes have come to the meeting `what`, however long that takes.

        Every few minutes one of those who wait says for whom. Raises ProcessLost.
        """
        self._send(what)  # "I am here"
        self._receive(what)
        if self._rank == 0:
            self._send(what)  # "all are here"
        else:
            self._receive(what, quiet=True)  # the main process knows who is missing, and says so

    def _send(self, what: str) -> None:
        for rank, link in self._links.items():
            try:
                link.sendall(b".")
            except OSError as error:
                raise _lost(rank, what) from error

    def _receive(self, what: str, quiet: bool = False) -> None:
        """Wait for a word from every connection."""
        missing = {link: rank for rank, link in self._links.items()}
        rounds = 0
        while missing:
            ready = wait(list(missing), REMARK_AFTER.total_seconds())
            rounds += 1
            if not ready and self._rank <= 1 and not quiet:
                names = " and ".join(_name(rank) for rank in missing.values())
                warn(f"waiting for {names} for {rounds * REMARK_AFTER} so far: {what}")
            for link in ready:
                assert isinstance(link, socket.socket)
                rank = missing.pop(link)
                try:
                    word = link.recv(1)
                except OSError as error:
                    raise _lost(rank, what) from error
                if not word:
                    raise _lost(rank, what)


def connect(rank: int, size: int, host: str, from_main: Callable[[Address | None], Address]) -> Links:
    """Connect all processes, which call this at the same time; `host` is the main process's machine.

    `from_main` gives every process the main process's argument. Raises ProcessLost.
    """
    try:
        links = _connections(rank, size, host, from_main)
    except OSError as error:
        raise ProcessLost(
            f"no connection to the main process at {host}: {error}; the machines of a run must reach each "
            "other on every port, as their collectives do too"
        ) from error
    return Links(rank, links)


def _connections(
    rank: int, size: int, host: str, from_main: Callable[[Address | None], Address]
) -> dict[int, socket.socket]:
    if rank > 0:
        port, token = from_main(None)
        link = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
        link.settimeout(None)
        link.sendall(token + rank.to_bytes(_RANK_BYTES))
        return {0: link}
    token = secrets.token_bytes(_TOKEN_BYTES)
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    with socket.create_server(("", 0), family=family, backlog=size, dualstack_ipv6=dual) as server:
        server.settimeout(_CONNECT_SECONDS)
        from_main((server.getsockname()[1], token))
        return _accept(server, token, size - 1)


def _accept(server: socket.socket, token: bytes, number: int) -> dict[int, socket.socket]:
    links: dict[int, socket.socket] = {}
    while len(links) < number:
        link, _ = server.accept()
        link.settimeout(_GREETING_SECONDS)
        try:
            greeting = link.recv(_TOKEN_BYTES + _RANK_BYTES, socket.MSG_WAITALL)
        except OSError:
            greeting = b""
        if secrets.compare_digest(greeting[:_TOKEN_BYTES], token):
            link.settimeout(None)
            links[int.from_bytes(greeting[_TOKEN_BYTES:])] = link
        else:  # not a process of this run
            link.close()
    return links


def _name(rank: int) -> str:
    return f"process {rank}" if rank else "the main process"


def _lost(rank: int, what: str) -> ProcessLost:
    return ProcessLost(
        f"{_name(rank)} has ended while this one waited for it ({what}); its message says why, or the "
        "kernel's log if it was killed, as for want of memory"
    )
