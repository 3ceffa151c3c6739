"""The service's TCP ports, held by the supervisor for as long as it lives.

The supervisor binds both ports without listening and the fronts bind the same ones beside it (SO_REUSEPORT). So port 0
becomes a real number before any front starts, a port that is taken is an error at once, and a front that is restarted
finds its port free.
"""

import ctypes
import socket
import struct
from contextlib import suppress
from typing import Final

from service.errors import GraftError

HANDSHAKE_S: Final = 0.1
"""For so long a connection may be in the making whose client takes it for made."""
_SO_ATTACH_FILTER: Final = 26
_DROP_SYN: Final = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""Classic BPF on a TCP header: load the byte of flags; with SYN among them keep nothing of the packet, else all."""


class PortTaken(GraftError):
    """Another program listens on a port that we were told to use."""


def hold_port(host: str, port: int) -> socket.socket:
    """Binds a TCP port without listening on it.

    Raises:
        PortTaken: it is in use, not allowed, or the host is not one of this machine's addresses.
    """
    try:
        return bound(host, port)
    except OSError as error:
        raise PortTaken(f"cannot listen on {at(host, port)}: {error.strerror}") from error


def bound(host: str, port: int) -> socket.socket:
    """A socket on a port that others of this user may have, too. It does not listen yet.

    Raises:
        OSError: see hold_port.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    holder = socket.socket(family, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(address)
    return holder


def require_silence(host: str, port: int) -> None:
    """Beside our own holder: the kernel would spread connections over us and whoever else listens there.

    Raises:
        PortTaken: a program of this user listens there, and lets others do so, too.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # without SO_REUSEPORT a listener is refused
        try:
            probe.bind(address)
        except OSError as error:
            raise PortTaken(f"cannot listen on {at(host, port)}: {error.strerror}") from error


def take_no_more(listener: socket.socket) -> None:
    """Keeps new connections off a listener that is about to close: it would reset those that nobody has accepted.

    Those that are being made are there within HANDSHAKE_S. New ones get no answer, not even a refusal: who tries again,
    as TCP does, finds the next front or none.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in _DROP_SYN))
    with suppress(OSError):  # not on every system; then the last moment is not covered
        pointer = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)


def at(host: str, port: int) -> str:
    """As URLs and servers write it: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
