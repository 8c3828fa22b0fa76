"""Requests to catalogues: retried with backoff, under one deadline, to allowed hosts only."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
from pystac.link import Link
from pystac_client.stac_api_io import StacApiIO
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry

from lcengine.addresses import check_host, is_url, redact, scrub
from lcengine.catalog.documents import absolute
from lcengine.errors import CatalogError

RETRIES = 5
BACKOFF = 0.4
"""Seconds before the first retry; doubled before each further one."""
RETRY_STATUS = frozenset({429, 500, 502, 503, 504})
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
MAX_BYTES = 2**28


class Fetcher(StacApiIO):
    """What pystac-client sends its requests through.

    pystac-client bounds neither the time of a whole search nor the waits that a server asks for,
    stops silently at an empty page, and follows any next link: this does not. Every failure is a
    `CatalogError` that names the source, without its secrets.
    """

    def __init__(self, source: str, hosts: Collection[str], seconds: float) -> None:
        super().__init__(max_retries=None)
        guard = _GuardedAdapter(hosts)
        self.session.mount("http://", guard)
        self.session.mount("https://", guard)
        self.source = redact(source)
        self.seconds = seconds
        self.items = 0
        self._end = time.monotonic() + seconds

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """Body of the answer as text; `CatalogError` after the last retry or at the deadline."""
        if not is_url(href):
            raise CatalogError(
                f"{self.source} links to {scrub(href)}, which is not on the web; not followed"
            )
        verb = (method or "GET").upper()
        arguments: dict[str, Any] = {"headers": headers}
        arguments["json" if verb == "POST" else "params"] = parameters
        why = ""
        for attempt in range(RETRIES + 1):
            pause = BACKOFF * 2**attempt
            try:
                with self._send(verb, href, arguments) as response:
                    text = self._text(response)
            except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
                if "NameResolutionError" in str(error):  # waiting does not bring a name back
                    raise CatalogError(
                        f"{redact(href)} cannot be reached: its host name does not resolve; "
                        "check the address and the network"
                    ) from None
                self._remaining()
                why = f"{type(error).__name__}: {scrub(str(error))}"
            except requests.RequestException as error:
                raise CatalogError(
                    f"{redact(href)} cannot be requested: {scrub(str(error))}"
                ) from None
            else:
                if response.ok:
                    return text
                why = f"it answered {response.status_code} {scrub(text)[:200]}".rstrip()
                if response.status_code not in RETRY_STATUS:
                    raise CatalogError(f"{redact(href)} failed: {why}")
                pause = max(pause, _retry_after(response))
            if attempt < RETRIES:
                self._wait(pause)
        raise CatalogError(f"{redact(href)} failed {RETRIES + 1} times, at last: {why}")

    def get_pages(
        self, url: str, method: str | None = None, parameters: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """All pages of a listing, to the last one without a next link.

        Raises `CatalogError`, naming the page, when one fails, when pages repeat, and when fewer
        items came than the server says there are.
        """
        number, seen, requests_made = 1, set[str](), set[str]()
        page = self._page(url, 1, seen, method=method, parameters=parameters)
        matched = _matched(page)
        while True:
            yield page
            link = next((x for x in page.get("links") or () if x.get("rel") == "next"), None)
            if link is None:
                break
            link = {**link, "href": absolute(str(link.get("href", "")), url)}
            key = json.dumps(link, sort_keys=True)
            if key in requests_made:
                raise self._broken(number, seen, "its next link leads back to an earlier page")
            requests_made.add(key)
            number += 1
            page = self._page(Link.from_dict(link), number, seen, parameters=parameters)
        if matched is not None and len(seen) < matched:
            raise self._broken(number, seen, f"the server says that {matched} items match")

    def _page(
        self, source: str | Link, number: int, seen: set[str], **arguments: Any
    ) -> dict[str, Any]:
        try:
            page: Any = json.loads(self.read_text(source, **arguments))
        except (CatalogError, ValueError) as error:
            raise self._broken(number, seen, str(error)) from None
        entries = page.get("features", page.get("collections")) if isinstance(page, dict) else None
        if not (isinstance(entries, list) and all(isinstance(e, dict) for e in entries)):
            raise self._broken(number, seen, "the answer is not a STAC listing")
        keys = {json.dumps([e.get("collection"), e.get("id")]) for e in entries}
        if keys and keys <= seen:
            raise self._broken(number, seen, "it repeats items of earlier pages")
        seen |= keys
        self.items = len(seen)
        listing: dict[str, Any] = page
        return listing

    def _broken(self, number: int, seen: set[str], why: str) -> CatalogError:
        return CatalogError(
            f"{self.source}: page {number} is not usable after {len(seen)} items: {why}; "
            "nothing was kept, repeat the search"
        )

    def _send(self, verb: str, href: str, arguments: dict[str, Any]) -> requests.Response:
        left = self._remaining()
        limits = (min(CONNECT_SECONDS, left), min(READ_SECONDS, left))
        return self.session.request(verb, href, timeout=limits, stream=True, **arguments)

    def _text(self, response: requests.Response) -> str:
        """The body, read as it comes: a trickle would restart a socket's timeout for ever."""
        parts: list[bytes] = []
        size = 0
        while part := response.raw.read1(2**16, decode_content=True):
            self._remaining()
            size += len(part)
            if size > MAX_BYTES:
                raise CatalogError(
                    f"{self.source}: an answer is larger than {MAX_BYTES >> 20} MiB; not read"
                )
            parts.append(part)
        return b"".join(parts).decode("utf-8-sig", errors="replace")

    def _wait(self, seconds: float) -> None:
        if seconds >= self._remaining():
            raise self._late(f"; it asks to wait another {seconds:.0f} s")
        time.sleep(seconds)

    def _remaining(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def _late(self, more: str = "") -> CatalogError:
        return CatalogError(
            f"{self.source} did not answer completely within {self.seconds:g} s "
            f"({self.items} items had come{more}); ask for less, or raise timeout= in Python"
        )


class _GuardedAdapter(HTTPAdapter):
    """Refuses private hosts that only a catalogue's link or redirect names."""

    def __init__(self, hosts: Collection[str]) -> None:
        super().__init__(max_retries=0)
        self.hosts = frozenset(hosts)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        check_host(urlsplit(request.url or "").hostname or "", self.hosts)
        return super().send(request, *args, **kwargs)


def _retry_after(response: requests.Response) -> float:
    header = response.headers.get("Retry-After")
    try:
        return Retry(0).parse_retry_after(header) if header else 0.0
    except InvalidHeader:
        return 0.0


def _matched(page: dict[str, Any]) -> int | None:
    context = page.get("context")
    matched = page.get("numberMatched", context.get("matched") if context else None)
    return matched if isinstance(matched, int) else None
