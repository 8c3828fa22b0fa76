"""Addresses: which hosts and kinds of files may be opened, and URLs shown without secrets."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

from lcengine.errors import HrefError

_SECRET = re.compile(
    r"(?<=://)[^/@\s]+@"  # a user and password
    r"|(?<==)[^&\s\"')]+(?=[&\s\"')]|$)"  # the value of a parameter
    r"|(?<=\.tif\?)[^=&\s\"':]+(?=[:,\s\"']|$)"  # a bare token after what GDAL calls a file
)
_URL = re.compile(r"https?://[^\s\"'<>]+")


DRIVERS = {
    ".tif": "GTiff",
    ".tiff": "GTiff",
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jp2": "JP2OpenJPEG",
}
"""Drivers by suffix. Naming one keeps GDAL from taking a file for something else, such as a VRT."""

LOCAL = "local files"
"""What stands for the host of addresses that have none."""


def host_of(href: str) -> str:
    """Host of an address, `s3://bucket` of an object, `LOCAL` for files."""
    try:
        parts = urlsplit(href)
        host = parts.hostname
    except ValueError:  # malformed; refused where somebody wants to open it
        return LOCAL
    if parts.scheme in ("s3", "gs"):
        return f"{parts.scheme}://{host}"
    return host or LOCAL


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


def _is_public(host: str) -> bool:
    """Whether every address of a host is public; a name that does not resolve is left to fail."""
    if not host:
        return False
    try:
        return all(ipaddress.ip_address(address).is_global for address in _resolved(host))
    except (OSError, UnicodeError):
        return True


@lru_cache(maxsize=1024)
def _resolved(host: str) -> frozenset[str]:
    """Addresses of a host; a failure is not remembered."""
    return frozenset(str(i[4][0]).split("%")[0] for i in socket.getaddrinfo(host, None))


def is_url(address: str) -> bool:
    """Whether an address is on the web."""
    return address.lower().startswith(("http://", "https://"))


def redact(url: str) -> str:
    """A URL without user name, password, fragment and the values of its query string."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:  # malformed, so nobody knows where its secrets are
        return f"{url.partition('://')[0]}://***"
    pairs = (pair.partition("=") for pair in parts.query.split("&") if pair)
    keys = (key + "=***" if sep else "***" for key, sep, _ in pairs)
    netloc = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, netloc, parts.path, "&".join(keys), ""))


def scrub(text: str) -> str:
    """Any text, on one line, with the URLs in it redacted."""
    line = " ".join(text.split())
    return _SECRET.sub("***", _URL.sub(lambda match: redact(match.group()), line))
