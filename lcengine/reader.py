"""Reading: from an address in a catalogue to int16 pixels on the product grid.

The only module that reads imagery. It opens GeoTIFF, JPEG 2000, PNG and JPEG, told by the suffix,
and nothing else (never a VRT in disguise), builds GDAL paths itself, checks that a file is what its
catalogue says, retries, and turns what stays unreadable into `ReadError`, which callers record:
never silent nodata.
"""

from __future__ import annotations

import atexit
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import CRSError, RasterioError
from rasterio.windows import Window as RasterioWindow

from lcengine.addresses import check_host, redact, scrub
from lcengine.crs import is_pixel_crs
from lcengine.errors import AssetError, HrefError, InputError, LcengineError, ReadError
from lcengine.imagefile import driver_of, gdal, unplaced
from lcengine.items import Access, Asset
from lcengine.kernels import convert, gather
from lcengine.locate import Footing, Lattice, Locator, SourceGrid, Window
from lcengine.remote import DENIED, GONE, RefusedError, Trial, resolve
from lcengine.sensors import FileLayout
from lcengine.signing import sign

Resampling = Literal["nearest", "bilinear", "average"]

ATTEMPTS = 5
BACKOFF = 0.5
"""Seconds before the second attempt, doubled before each further one."""
PATIENCE = 120.0
"""Seconds after which a read is not tried again, or where a server asks to wait beyond them."""
HEADER_ATTEMPTS = 3
HEADER_PATIENCE = 10.0
"""The same of a header: somebody waits for a plan, which can do without."""
HANDLES = 256
BLOCK_BYTES = 2**28
RASTER_BYTES = 2**40
"""Largest decoded block and raster of a file that is opened: more is a mistake or a bomb."""
NODATA = convert.NODATA

STATUS = re.compile(r"HTTP response code: (\d{3})")
_LUCK = re.compile(r"(after )\d+ milliseconds|(got )\d+ bytes| at 0x[0-9a-f]+|\d+( bytes received)")
"""What differs in the same failure from time to time."""

GDAL_OPTIONS: dict[str, Any] = {
    # No sidecar files and no directory listing: one request per open, and no surprises.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    # Windows are cut along the source's blocks, so a block is rarely wanted twice.
    "GDAL_CACHEMAX": 64 * 2**20,
}

"""Options of GDAL; those that the environment sets, too, are taken from there."""

INT16 = npt.NDArray[np.int16]
T = TypeVar("T")


def gdal_options() -> dict[str, Any]:
    """`GDAL_OPTIONS`, but for what the user's environment says."""
    return {name: os.environ.get(name, value) for name, value in GDAL_OPTIONS.items()}


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
            dataset = _open(asset, access, path, fresh)
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

    def close(self) -> None:
        """Close what is idle."""
        # Outside an environment of rasterio GDAL's messages, addresses and all, go to the terminal.
        with self._lock, gdal():
            while self._idle:
                self._idle.popitem()[1].close()


handles = Handles(HANDLES)
atexit.register(handles.close)


def _version(path: str) -> tuple[int, int] | None:
    """Modification time and size of a local file, so that a rewritten file is reopened."""
    if path.startswith("/vsi"):
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _open(asset: Asset, access: Access, path: str, fresh: bool) -> Any:
    # In the name of a local file # and ? are characters like others.
    driver = driver_of(urlsplit(asset.href).path if path.startswith("/vsi") else path)
    options = {}
    if path.startswith("/vsicurl/"):
        path = _resolved(asset, access)
    if fresh:
        # GDAL remembers failures per URL: without this a retry never leaves the process. The
        # prefix without the query also covers the address under every signature.
        options["CPL_VSIL_CURL_NON_CACHED"] = path.partition("?")[0]
    with gdal(**options), unplaced() if is_pixel_crs(asset.crs) else nullcontext():
        dataset = rasterio.open(path, driver=driver, sharing=False)
    try:
        _check_size(dataset, asset)
        _check_dataset(dataset, asset)
    except LcengineError:
        dataset.close()
        raise
    return dataset


def _resolved(asset: Asset, access: Access) -> str:
    """GDAL's path of a web address, signed and behind its redirects."""
    href = asset.href if access.signer is None else sign(asset.href, access.signer)
    gdal_path(href, access)  # what is not allowed is refused before anybody is asked
    limits = _limit("GDAL_HTTP_CONNECTTIMEOUT"), _limit("GDAL_HTTP_LOW_SPEED_TIME")
    return gdal_path(resolve(href, access.hosts, limits), access)


def _limit(name: str) -> float:
    """Seconds of an option of GDAL. 0 is no limit to it, and our default to requests of our own."""
    value = gdal_options()[name]
    try:
        seconds = float(value)
    except ValueError:
        raise InputError(f"{name} is {value!r} in the environment, expected seconds") from None
    return seconds if seconds > 0 else float(GDAL_OPTIONS[name])


def _check_size(dataset: Any, asset: Asset) -> None:
    """Refuse what would fill the memory when GDAL decodes a single block of it."""
    item = max(np.dtype(name).itemsize for name in dataset.dtypes)
    together = dataset.count if dataset.interleaving is Interleaving.pixel else 1
    block = max(h * w for h, w in dataset.block_shapes) * item * together
    whole = dataset.height * dataset.width * dataset.count * item
    if block > BLOCK_BYTES or whole > RASTER_BYTES:
        raise ReadError(
            f"{redact(asset.href)} has {dataset.count} bands of {dataset.height}x{dataset.width} "
            f"in blocks of {block} bytes, expected at most {BLOCK_BYTES} a block and "
            f"{RASTER_BYTES} altogether; leave the item out"
        )


def _check_dataset(dataset: Any, asset: Asset) -> None:
    """A file whose grid is not the one its catalogue states would land in the wrong place."""
    if (dataset.height, dataset.width) != asset.shape:
        raise ReadError(
            f"{redact(asset.href)} has shape {dataset.height}x{dataset.width}, "
            f"its catalogue says {asset.shape[0]}x{asset.shape[1]}"
        )
    if is_pixel_crs(asset.crs):
        if dataset.crs is not None and dataset.crs.is_projected | dataset.crs.is_geographic:
            raise ReadError(
                f"{redact(asset.href)} has CRS {dataset.crs.to_string()}, its catalogue says that "
                "it has none; search again"
            )
        return
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

    def read(dataset: Any) -> Any:
        area = RasterioWindow(window.x0, window.y0, window.width, window.height)
        target = None
        if out is not None and dataset.dtypes[asset.band - 1] == "uint16":
            target = out.view(np.uint16)
        return dataset.read(asset.band, window=area, out=target)

    return _tried(asset, access, read)


def header(asset: Asset, access: Access) -> FileLayout:
    """How a file stores its pixels, from its header; reads no pixel.

    Gives up sooner than reads of pixels do.
    """

    def read(dataset: Any) -> FileLayout:
        height, width = map(int, dataset.block_shapes[asset.band - 1])
        itemsize = np.dtype(dataset.dtypes[asset.band - 1]).itemsize
        share = _stored_share(dataset, asset.band, (height, width), itemsize)
        return FileLayout((height, width), itemsize, share)

    return _tried(asset, access, read, Trial(HEADER_ATTEMPTS, BACKOFF, HEADER_PATIENCE))


def _tried(asset: Asset, access: Access, use: Callable[[Any], T], remote: Trial | None = None) -> T:
    """`use(dataset)` of an asset, opened anew after each failure; `ReadError` after the last.

    `remote`: how often and how long, over a network.
    """
    trial = Trial(1, 0.0, PATIENCE)
    fresh = False
    try:
        if gdal_path(asset.href, access).startswith("/vsi"):
            trial = remote or Trial(ATTEMPTS, BACKOFF, PATIENCE)
        while True:
            try:
                with gdal(**gdal_options()), handles.borrow(asset, access, fresh) as opened:
                    return use(opened)
            except (RasterioError, OSError) as error:  # OSError: requests, ours and the signer's
                reason, refusal = _reason(error), _refusal(error, fresh)
            if not trial.again(refusal):
                raise ReadError(f"{redact(asset.href)} could not be read: {reason}")
            fresh = True
    except AssetError as error:
        error.href, error.attempts = redact(asset.href), trial.number
        raise


def _reason(error: BaseException) -> str:
    """What went wrong: the same text for the same failure, without secrets."""
    return _LUCK.sub(r"\1\2…\3", scrub(str(error.__cause__ or error)))


def _refusal(error: BaseException, fresh: bool) -> RefusedError | None:
    """What a server answered, where that is known."""
    if isinstance(error, RefusedError):
        return error
    found = STATUS.search(str(error))
    status = int(found[1]) if found else 0
    # Unless the file was opened anew, GDAL may only remember that it was gone.
    return RefusedError(status) if status in DENIED or (fresh and status in GONE) else None


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
) -> int:
    """Fill `out` (int16, y, x) with the asset's pixels on the locator's window, nodata -32768.

    They are reflectance * 10000, backscatter in dB * 100, or numbers, by the asset's unit.
    Backscatter is averaged and interpolated as linear power, from the file's own values. Returns
    the bytes that were decoded for it.
    """
    source = SourceGrid.of(asset)
    k = oversampling(locator.product, source) if resampling == "average" else 1
    footing = locator.footing(source.lattice, k)
    margin = 1 if resampling == "bilinear" else 0
    area = footing.bounds(source.shape, margin)
    if area is None:
        out[...] = NODATA
        return 0
    if k == 1 and resampling != "bilinear" and footing.contiguous:
        return _read_aligned(asset, access, footing, area, out)
    scaling = _scaling(asset)
    if scaling.logarithmic and (k > 1 or resampling == "bilinear"):
        raw = read_raw(asset, access, area)
        power = np.empty(out.shape, np.float64)
        resample(convert.to_power(raw, scaling), footing, area, power, resampling, k)
        convert.to_decibels(power, out)
        return int(raw.nbytes)
    values = np.empty((area.height, area.width), dtype=np.int16)
    decoded = _read_pixels(asset, access, area, values)
    resample(values, footing, area, out, resampling, k)
    return decoded


def _scaling(asset: Asset) -> convert.Scaling:
    return convert.Scaling(asset.scale, asset.offset, asset.nodata, asset.unit)


def _read_aligned(asset: Asset, access: Access, footing: Footing, area: Window, out: INT16) -> int:
    """A read that lies on the product grid: straight into place."""
    y = area.y0 - int(footing.row_index[0])
    x = area.x0 - int(footing.col_index[0])
    inner = out[y : y + area.height, x : x + area.width]
    if inner.shape != out.shape:
        out[...] = NODATA
    return _read_pixels(asset, access, area, inner)


def _read_pixels(asset: Asset, access: Access, area: Window, out: INT16) -> int:
    """The pixels of a source window into `out`; the bytes that were decoded."""
    raw = read_raw(asset, access, area, out)
    decoded = int(raw.nbytes)
    convert.to_pixels(raw, _scaling(asset), out)
    return decoded


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
    """Gather `values` (the source window `area`) at a footing into `out`, of the same type.

    What is missing is -32768 of int16, else 0.
    """
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
