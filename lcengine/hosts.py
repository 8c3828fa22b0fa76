"""Which hosts a catalogue may send us to: public ones, and private ones allowed by name."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from functools import lru_cache

from lcengine.errors import HrefError


def check_host(host: str, allowed: Collection[str]) -> None:
    """`HrefError` for a loopback, private or link-local host that is not in `allowed`.

    A catalogue is somebody else's text: without this its addresses could reach into the user's
    own network.
    """
    host = host.lower()
    if host not in allowed and not _is_public(host):
        raise HrefError(
            f"the catalogue names the private host {host!r}; allow it with --allow-host {host}"
        )


@lru_cache(maxsize=1024)
def _is_public(host: str) -> bool:
    """Whether every address of a host is public; a name that does not resolve is left to fail."""
    if not host:
        return False
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return True
    return all(ipaddress.ip_address(address.split("%")[0]).is_global for address in found)
