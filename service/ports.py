"""The service's TCP ports, held by the supervisor for as long as it lives.

The supervisor binds both ports without listening and the fronts bind the same ones beside it (SO_REUSEPORT). So port 0
becomes a real number before any front starts, a port that is taken is an error at once, and a front that is restarted
finds its port free.
"""

import socket

from service.errors import GraftError


class PortTaken(GraftError):
    """Another program listens on a port that we were told to use."""


def hold_port(host: str, port: int) -> socket.socket:
    """Binds a TCP port without listening on it.

    Raises:
        PortTaken: it is in use, not allowed, or the host is not one of this machine's addresses.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        holder = socket.socket(family, socket.SOCK_STREAM)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(address)
    except OSError as error:
        raise PortTaken(f"cannot listen on {at(host, port)}: {error.strerror}") from error
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


def at(host: str, port: int) -> str:
    """As URLs and servers write it: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
