"""Legends: class codes with names and colours, and what they do to rasters.

Three encodings of a class map: *codes* as products publish them, stored in the smallest unsigned
type that also holds a nodata value (uint8 with 255, uint16 with 65535); *indices* for training,
uint8 0 … K-1 with 255 for what is no class; *RGB*, as some label sets are published.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError

IGNORE = 255
"""Training index of pixels without a class: nodata and ignored codes."""

Codes = npt.NDArray[np.unsignedinteger[Any]]
RGB = tuple[int, int, int]

_COLOUR = re.compile(r"#[0-9a-f]{6}")
_UNKNOWN = -1
_SORTED = 1 << 17
"""Pixels up to which sorting finds the distinct colours sooner than a table of all colours."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One code: its name, colour (#rrggbb) and the groups it belongs to, the broadest first."""

    code: int
    name: str
    colour: str
    groups: tuple[str, ...] = ()

    @property
    def rgb(self) -> RGB:
        """Colour as (red, green, blue), 0 … 255."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue


@dataclass(frozen=True)
class Legend:
    """The classes of a land-cover map.

    `entries`: every code that may occur, in the order of the training indices. `ignored`: those of
    them that are no class, such as fill and background. `source`: where codes, names and colours
    are documented.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    source: str
    ignored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        codes = [entry.code for entry in self.entries]
        if len(set(codes)) < len(codes) or not all(0 <= code < 65535 for code in codes):
            raise InputError(
                f"legend {self.name} has codes {codes}, expected distinct ones from 0 to 65534"
            )
        if not 1 <= len(self.classes) <= IGNORE:
            raise InputError(
                f"legend {self.name} has {len(self.classes)} classes, expected 1 to {IGNORE}"
            )
        wrong = [e.colour for e in self.entries if not _COLOUR.fullmatch(e.colour)]
        if wrong or not set(self.ignored) <= set(codes):
            raise InputError(
                f"legend {self.name} has colours {wrong} or ignored codes {self.ignored}; "
                "expected #rrggbb (lower case) and codes of its own"
            )

    @cached_property
    def classes(self) -> tuple[Entry, ...]:
        """The entries that are classes; entry i has training index i."""
        return tuple(entry for entry in self.entries if entry.code not in self.ignored)

    @property
    def codes(self) -> tuple[int, ...]:
        """Codes of the classes."""
        return tuple(entry.code for entry in self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(entry.name for entry in self.classes)

    @property
    def colours(self) -> tuple[str, ...]:
        """Colours of the classes, #rrggbb."""
        return tuple(entry.colour for entry in self.classes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Smallest unsigned type of all codes and a nodata value beside them."""
        return np.dtype(np.uint8 if max(e.code for e in self.entries) < 255 else np.uint16)

    @property
    def nodata(self) -> int:
        """Code of pixels without any statement: 255 of uint8, 65535 of uint16."""
        return int(np.iinfo(self.dtype).max)

    def entry(self, code: int) -> Entry:
        """The entry of a code, or `InputError`."""
        for entry in self.entries:
            if entry.code == code:
                return entry
        raise InputError(f"legend {self.name} has no code {code}; it has {self._listed()}")

    def find(self, value: int | str) -> Entry:
        """The entry of a class as people and files write it, or `InputError`.

        An integer is a code. Text is a name, else a name but for its case and accents' form, else a
        code: names go first, since class "1" of an annotation may have code 2.
        """
        text = folded(str(value))
        codes = [str(entry.code) for entry in self.entries]
        names = [
            ([entry.name for entry in self.entries], str(value).strip()),
            ([folded(entry.name) for entry in self.entries], text),
        ]
        ways = [(codes, text), *names] if isinstance(value, int) else [*names, (codes, text)]
        for known, asked in ways:
            if asked in known:
                return self.entries[known.index(asked)]
        listed = ", ".join([*self.names[:20], *(["…"] if len(self.names) > 20 else [])])
        raise InputError(f"{value!r} is no class of legend {self.name}; it has {listed}")

    def stored(self, codes: npt.ArrayLike, missing: int | None = None) -> Codes:
        """Codes of any integer type as `dtype`; `missing` (the source's nodata) becomes `nodata`.

        `InputError` for codes the legend does not have.
        """
        values = np.asarray(codes)
        gone = values == self.nodata
        if missing is not None:
            gone |= values == missing
        table = self._table({e.code: e.code for e in self.entries})
        found = np.where(gone, self.nodata, self._look_up(values, table, gone))
        return found.astype(self.dtype)

    def encode(self, codes: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Codes (any integer type, any shape) as training indices 0 … K-1.

        255 for ignored codes and nodata; `InputError` for codes the legend does not have.
        """
        values = np.asarray(codes)
        index = dict.fromkeys((*self.ignored, self.nodata), IGNORE)
        index.update({entry.code: i for i, entry in enumerate(self.classes)})
        return self._look_up(values, self._table(index)).astype(np.uint8)

    def decode(self, indices: npt.ArrayLike) -> Codes:
        """Training indices as codes of `dtype`, 255 as nodata; `InputError` for other indices."""
        values = np.asarray(indices)
        code = {i: entry.code for i, entry in enumerate(self.classes)}
        found = self._look_up(values, self._table({**code, IGNORE: self.nodata}), what="index")
        return found.astype(self.dtype)

    def to_rgb(self, codes: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Codes (any shape) as uint8 (…, 3); nodata is black."""
        values = np.asarray(codes)
        place = {entry.code: i for i, entry in enumerate(self.entries)}
        rows = self._look_up(values, self._table({**place, self.nodata: len(self.entries)}))
        colours = np.array([*(entry.rgb for entry in self.entries), (0, 0, 0)], dtype=np.uint8)
        return colours[rows]

    def from_rgb(
        self,
        rgb: npt.ArrayLike,
        tolerance: int = 0,
        unknown: Literal["error", "ignore"] = "error",
    ) -> Codes:
        """Colours, uint8 (…, 3), as codes of `dtype`.

        A pixel gets the code whose colour is nearest by its greatest difference of a channel, at
        most `tolerance`; 127 is the threshold at 128 that compressed masks of pure colours want.
        Other colours become nodata where `unknown` is "ignore". Raises `InputError` for them
        otherwise, and where codes share a colour.
        """
        pixels = np.asarray(rgb)
        if pixels.dtype != np.uint8 or pixels.ndim < 1 or pixels.shape[-1] != 3:
            raise InputError(
                f"colours have dtype {pixels.dtype} and shape {pixels.shape}, expected uint8 (…, 3)"
            )
        if not 0 <= tolerance <= 255:
            raise InputError(f"tolerance is {tolerance}, expected 0 (exact) to 255")
        known = np.array([entry.rgb for entry in self.entries], dtype=np.int16)
        if len(np.unique(known, axis=0)) < len(known):
            raise InputError(
                f"codes of legend {self.name} share colours, so colours do not tell them; "
                "read a raster of codes"
            )
        distinct, place = _distinct(pixels)
        channels = (distinct[:, None] >> np.array([16, 8, 0], dtype=np.uint32) & 255).astype("i2")
        apart = np.stack([np.abs(channels - colour).max(axis=1) for colour in known], axis=1)
        far = apart.min(axis=1, initial=256) > tolerance
        if far.any() and unknown == "error":
            strange = ", ".join(f"#{colour:06x}" for colour in distinct[far][:5])
            raise InputError(
                f"{int(far.sum())} colours are not of legend {self.name}: {strange}; "
                "give a tolerance (127 for masks of pure colours), another legend, or ignore them"
            )
        codes: Codes = np.array([entry.code for entry in self.entries], dtype=self.dtype)
        nearest = np.where(far, self.nodata, codes[apart.argmin(axis=1)]).astype(self.dtype)
        found: Codes = nearest[place]
        return found

    def colormap(self) -> dict[int, tuple[int, int, int, int]]:
        """Code → (red, green, blue, alpha), as GDAL's colour tables have it; ignored are clear."""
        return {e.code: (*e.rgb, 0 if e.code in self.ignored else 255) for e in self.entries}

    def attributes(self) -> dict[str, Any]:
        """CF attributes of a variable of codes: `flag_values`, `flag_meanings`, `flag_colors`."""
        # One word for each value, in any script; a name of signs alone is called after its code.
        words = (re.sub(r"\W+", "_", name.lower()).strip("_") for name in self.names)
        meanings = [w or f"class_{code}" for w, code in zip(words, self.codes, strict=True)]
        return {
            "flag_values": list(self.codes),
            "flag_meanings": " ".join(meanings),
            "flag_colors": " ".join(self.colours),
            "_FillValue": self.nodata,
        }

    def to_json(self) -> dict[str, Any]:
        """JSON values; `from_json` gives an equal legend back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Legend:
        """Inverse of `to_json`; `InputError` for what is no legend."""
        try:
            rows = [{**row, "groups": tuple(row.get("groups", ()))} for row in data["entries"]]
            entries = tuple(Entry(**row) for row in rows)
            return cls(**{**data, "entries": entries, "ignored": tuple(data.get("ignored", ()))})
        except (KeyError, TypeError) as error:
            raise InputError(
                f"this is no legend ({error}); expected name, title, source, ignored and entries "
                "of code, name, colour and groups"
            ) from error

    def _table(self, values: Mapping[int, int]) -> npt.NDArray[np.int32]:
        """`values` by code, -1 where there is none."""
        table = np.full(65536, _UNKNOWN, dtype=np.int32)
        table[list(values)] = list(values.values())
        return table

    def _look_up(
        self,
        values: npt.NDArray[Any],
        table: npt.NDArray[np.int32],
        spare: npt.NDArray[np.bool_] | None = None,
        what: str = "code",
    ) -> npt.NDArray[np.int32]:
        """`table[values]`; `InputError` for what is not in it, but for `spare` pixels."""
        if values.dtype.kind not in "iu":
            raise InputError(f"a raster of {what}s is {values.dtype}, expected integers")
        inside = (values >= 0) & (values < table.size)
        found = np.where(inside, table[np.where(inside, values, 0)], _UNKNOWN)
        unknown = found == _UNKNOWN if spare is None else (found == _UNKNOWN) & ~spare
        if unknown.any():
            strange = ", ".join(map(str, np.unique(values[unknown])[:8]))
            raise InputError(
                f"{int(unknown.sum())} pixels have a {what} that legend {self.name} has not: "
                f"{strange}; it has {self._listed()}"
            )
        return found

    def _listed(self) -> str:
        codes = [str(entry.code) for entry in self.entries]
        return ", ".join(codes if len(codes) <= 32 else [*codes[:31], "…"])


def folded(text: str) -> str:
    """A name as names are compared: whatever its case, and the form of its accents."""
    return unicodedata.normalize("NFC", text).strip().casefold()


def _distinct(
    pixels: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.integer[Any]]]:
    """The colours of an image as 0xrrggbb, sorted, and which of them each pixel has."""
    packed = pixels[..., 0].astype(np.uint32)
    for channel in (1, 2):
        packed <<= 8
        packed |= pixels[..., channel]
    if packed.size < _SORTED:
        colours, place = np.unique(packed, return_inverse=True)
        return colours, place.reshape(packed.shape)
    seen = np.zeros(1 << 24, dtype=np.bool_)
    seen[packed] = True
    found = np.flatnonzero(seen)
    number = np.zeros(1 << 24, dtype=np.int32)
    number[found] = np.arange(found.size, dtype=np.int32)
    return found.astype(np.uint32), number[packed]


def entries(text: str) -> tuple[Entry, ...]:
    """Entries of a table: lines `code rrggbb name` below headings `Group / Group:`.

    A heading of `:` alone ends a group.
    """
    found: list[Entry] = []
    groups: Sequence[str] = ()
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.endswith(":"):
            groups = [part.strip() for part in line[:-1].split("/") if part.strip()]
            continue
        code, colour, name = line.split(maxsplit=2)
        found.append(Entry(int(code), name, f"#{colour}", tuple(groups)))
    return tuple(found)
