"""Reading: from an address in a catalogue to int16 pixels on the product grid.

The only module that opens imagery. It opens GeoTIFF and JPEG 2000 and nothing else (never a VRT
in disguise), builds GDAL paths itself, checks that a file is what its catalogue says, retries, and
turns what stays unreadable into `ReadError`, which callers record: never silent nodata.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, get_args
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import CRSError, RasterioError
from rasterio.windows import Window as RasterioWindow

from lcengine.addresses import check_host, redact, scrub
from lcengine.errors import HrefError, InputError, LcengineError, ReadError
from lcengine.items import Access, Asset
from lcengine.kernels import convert, gather
from lcengine.locate import Footing, Lattice, Locator, SourceGrid, Window
from lcengine.sensors import FileLayout
from lcengine.signing import sign

Resampling = Literal["nearest", "bilinear", "average"]

ATTEMPTS = 4
GONE = "HTTP response code: 404"
"""What GDAL says of an address that another attempt will not bring back."""
BACKOFF = 0.25
HANDLES = 256
NODATA = convert.NODATA

GDAL_OPTIONS: dict[str, Any] = {
    # No sidecar files and no directory listing: one request per open, and no surprises.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    # Windows are cut along the source's blocks, so a block is rarely wanted twice.
    "GDAL_CACHEMAX": 64 * 2**20,
}

INT16 = npt.NDArray[np.int16]


def check_resampling(name: str) -> Resampling:
    """`name` if it is a resampling, else `InputError`."""
    for known in get_args(Resampling):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"resampling is {name!r}, expected one of {', '.join(get_args(Resampling))}")


def gdal_path(href: str, access: Access) -> str:
    """The path that GDAL opens for an address, or `HrefError`.

    Allowed are public hosts, the hosts in `access`, `s3:`/`gs:` objects, and local files where the
    catalogue itself is local.
    """
    if any(ord(c) < 32 for c in href):
        raise HrefError(
            f"address {redact(href)!r} has control characters; expected a plain URL or path"
        )
    try:
        parts = urlsplit(href)
        host = parts.hostname or ""
    except ValueError as error:
        raise HrefError(
            f"address {redact(href)!r} is malformed ({error}); expected a URL"
        ) from None
    if parts.scheme in ("http", "https") and " " not in href:
        check_host(host, access.hosts)
        return f"/vsicurl/{href}"
    if parts.scheme in ("s3", "gs") and "?" not in href:
        return f"/vsi{parts.scheme}/{parts.netloc}{parts.path}"
    if parts.scheme in ("", "file"):
        return _local_path(href, access)
    raise HrefError(f"address {redact(href)!r} is not a plain http, https, s3, gs or file address")


def _local_path(href: str, access: Access) -> str:
    if not access.local:
        raise HrefError(
            f"address {redact(href)!r} is a local file named by a remote catalogue; "
            "only a local catalogue may name local files"
        )
    path = unquote(urlsplit(href).path) if href.startswith("file:") else href
    path = os.path.abspath(path)
    if path.startswith("/vsi"):
        raise HrefError(
            f"address {redact(href)!r} is a GDAL virtual path; expected a plain file path"
        )
    return path


class Handles:
    """A bounded pool of open datasets: each is lent to one thread at a time and reused."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._idle: OrderedDict[tuple[object, int], Any] = OrderedDict()
        self._serial = 0

    @contextmanager
    def borrow(self, asset: Asset, access: Access, fresh: bool = False) -> Iterator[Any]:
        """An open dataset of the asset; `fresh` opens anew. Dropped, not reused, after an error."""
        path = gdal_path(asset.href, access)
        # What the catalogue says of the file is part of the key: it is checked on opening.
        key = (path, _version(path), asset.crs, asset.transform, asset.shape)
        dataset = None if fresh else self._take(key)
        if dataset is None:
            dataset = _open(asset, access, path)
        try:
            if dataset.count < asset.band:
                raise ReadError(
                    f"{redact(asset.href)} has {dataset.count} bands, expected band {asset.band}"
                )
            yield dataset
        except BaseException:
            dataset.close()
            raise
        self._give(key, dataset)

    def _take(self, key: object) -> Any:
        with self._lock:
            for held in reversed(self._idle):
                if held[0] == key:
                    return self._idle.pop(held)
        return None

    def _give(self, key: object, dataset: Any) -> None:
        with self._lock:
            self._serial += 1
            self._idle[key, self._serial] = dataset
            surplus = [
                self._idle.popitem(last=False)[1]
                for _ in range(max(0, len(self._idle) - self.limit))
            ]
        for old in surplus:
            old.close()


handles = Handles(HANDLES)


def _version(path: str) -> tuple[int, int] | None:
    """Modification time and size of a local file, so that a rewritten file is reopened."""
    if path.startswith("/vsi"):
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _open(asset: Asset, access: Access, path: str) -> Any:
    if access.signer is not None and path.startswith("/vsicurl/"):
        path = gdal_path(sign(asset.href, access.signer), access)
    # Naming the driver keeps GDAL from taking the content for something else, such as a VRT.
    driver = "JP2OpenJPEG" if urlsplit(asset.href).path.endswith(".jp2") else "GTiff"
    dataset = rasterio.open(path, driver=driver, sharing=False)
    try:
        _check_dataset(dataset, asset)
    except LcengineError:
        dataset.close()
        raise
    return dataset


def _check_dataset(dataset: Any, asset: Asset) -> None:
    """A file whose grid is not the one its catalogue states would land in the wrong place."""
    if (dataset.height, dataset.width) != asset.shape:
        raise ReadError(
            f"{redact(asset.href)} has shape {dataset.height}x{dataset.width}, "
            f"its catalogue says {asset.shape[0]}x{asset.shape[1]}"
        )
    if not np.allclose(tuple(dataset.transform)[:6], asset.transform, rtol=0, atol=1e-6):
        raise ReadError(
            f"{redact(asset.href)} has transform {tuple(dataset.transform)[:6]}, "
            f"its catalogue says {asset.transform}"
        )
    if dataset.crs is None or not _same_crs(dataset.crs.to_wkt(), asset.crs):
        name = None if dataset.crs is None else dataset.crs.to_string()
        raise ReadError(f"{redact(asset.href)} has CRS {name}, its catalogue says {asset.crs}")


@lru_cache(maxsize=256)
def _same_crs(wkt: str, stated: str) -> bool:
    try:
        return bool(rasterio.CRS.from_wkt(wkt) == rasterio.CRS.from_user_input(stated))
    except CRSError:
        return False


def read_raw(asset: Asset, access: Access, window: Window, out: Any = None) -> Any:
    """Stored values of a window (source pixels, inside the raster), in the file's own dtype.

    `out`: a writable 2-D int16 array whose memory a file of unsigned 16-bit numbers is read into
    (and returned as uint16), saving a copy. Raises `ReadError` after all retries.
    """
    remote = gdal_path(asset.href, access).startswith("/vsi")
    attempts = ATTEMPTS if remote else 1
    reason = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(BACKOFF * 2**attempt)
        try:
            return _read_once(asset, access, window, out, fresh=attempt > 0)
        except (RasterioError, OSError) as error:  # OSError: the signer's requests
            reason = scrub(str(error.__cause__ or error))
            if GONE in reason:
                break
    raise ReadError(f"{redact(asset.href)} could not be read in {attempt + 1} attempts: {reason}")


def _read_once(asset: Asset, access: Access, window: Window, out: Any, fresh: bool) -> Any:
    options = dict(GDAL_OPTIONS)
    if fresh:
        # GDAL remembers failures per URL: without this a retry never leaves the process. The
        # prefix without the query also covers the address under every signature.
        options["CPL_VSIL_CURL_NON_CACHED"] = gdal_path(asset.href, access).partition("?")[0]
    with rasterio.Env(**options), handles.borrow(asset, access, fresh) as dataset:
        area = RasterioWindow(window.x0, window.y0, window.width, window.height)
        target = None
        if out is not None and dataset.dtypes[asset.band - 1] == "uint16":
            target = out.view(np.uint16)
        return dataset.read(asset.band, window=area, out=target)


def header(asset: Asset, access: Access) -> FileLayout:
    """How a file stores its pixels, from its header; reads no pixel."""
    try:
        with rasterio.Env(**GDAL_OPTIONS), handles.borrow(asset, access) as dataset:
            height, width = map(int, dataset.block_shapes[asset.band - 1])
            itemsize = np.dtype(dataset.dtypes[asset.band - 1]).itemsize
            share = _stored_share(dataset, asset.band, (height, width), itemsize)
            return FileLayout((height, width), itemsize, share)
    except (RasterioError, OSError) as error:  # OSError: the signer's requests
        raise ReadError(f"{redact(asset.href)} could not be opened: {scrub(str(error))}") from error


def _stored_share(dataset: Any, band: int, block: tuple[int, int], itemsize: int) -> float | None:
    """Stored bytes per decoded byte, from nine blocks spread over a GeoTIFF; None elsewhere."""
    rows, cols = (-(-n // edge) for n, edge in zip(dataset.shape, block, strict=True))
    chosen = {(y * rows // 6, x * cols // 6) for y in (1, 3, 5) for x in (1, 3, 5)}
    tags = [dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=band) for y, x in chosen]
    if not any(tags):
        return None
    # A block without a tag is not stored at all.
    return sum(int(tag or 0) for tag in tags) / (len(tags) * block[0] * block[1] * itemsize)


def read_band(
    asset: Asset,
    access: Access,
    locator: Locator,
    out: INT16,
    resampling: Resampling = "nearest",
) -> None:
    """Fill `out` (int16, y, x) with reflectance * 10000 on the locator's window, nodata -32768."""
    source = SourceGrid.of(asset)
    k = oversampling(locator.product, source) if resampling == "average" else 1
    footing = locator.footing(source.lattice, k)
    margin = 1 if resampling == "bilinear" else 0
    area = footing.bounds(source.shape, margin)
    if area is None:
        out[...] = NODATA
    elif k == 1 and resampling != "bilinear" and footing.contiguous:
        _read_aligned(asset, access, footing, area, out)
    else:
        values = _read_reflectance(asset, access, area)
        resample(values, footing, area, out, resampling, k)


def _read_aligned(asset: Asset, access: Access, footing: Footing, area: Window, out: INT16) -> None:
    """A read that lies on the product grid: straight into place."""
    y = area.y0 - int(footing.row_index[0])
    x = area.x0 - int(footing.col_index[0])
    inner = out[y : y + area.height, x : x + area.width]
    if inner.shape != out.shape:
        out[...] = NODATA
    raw = read_raw(asset, access, area, inner)
    convert.to_reflectance(raw, asset.scale, asset.offset, asset.nodata, inner)


def _read_reflectance(asset: Asset, access: Access, area: Window) -> INT16:
    values = np.empty((area.height, area.width), dtype=np.int16)
    raw = read_raw(asset, access, area, values)
    convert.to_reflectance(raw, asset.scale, asset.offset, asset.nodata, values)
    return values


def oversampling(product: Lattice, source: SourceGrid) -> int:
    """How many samples per axis make an `average`: enough to meet every source pixel once."""
    if product.crs == source.lattice.crs or _metric(product.crs) == _metric(source.lattice.crs):
        return max(1, int(np.ceil(product.dx / source.lattice.dx - 1e-9)))
    raise InputError(
        f"average resampling between {source.lattice.crs} and {product.crs} is not defined: "
        "their units differ; use nearest or bilinear"
    )


@lru_cache(maxsize=256)
def _metric(crs: str) -> bool:
    return bool(rasterio.CRS.from_user_input(crs).is_projected)


def resample(
    values: npt.NDArray[Any],
    footing: Footing,
    area: Window,
    out: npt.NDArray[Any],
    resampling: Resampling = "nearest",
    k: int = 1,
) -> None:
    """Gather `values` (the source window `area`) at a footing into `out`."""
    fill = out.dtype.type(NODATA if out.dtype == np.int16 else 0)
    if resampling == "bilinear":
        rows, cols = footing.dense
        gather.bilinear(values, rows - area.y0, cols - area.x0, fill, out)
        return
    target = out if k == 1 else np.empty(footing.shape, dtype=out.dtype)
    rows_index = footing.row_index - np.int32(area.y0)
    cols_index = footing.col_index - np.int32(area.x0)
    if footing.separable:
        gather.nearest_separable(values, rows_index, cols_index, fill, target)
    else:
        gather.nearest(values, rows_index, cols_index, fill, target)
    if k > 1:
        gather.block_mean(target, k, fill, out)
