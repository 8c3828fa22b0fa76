"""Options about hours, money and bytes, and how they become a `Pricing`."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcengine.errors import InputError
from lcengine.price import Limits, Machines, Prices, Rates

if TYPE_CHECKING:
    from lcengine.composite import CompositePlan
    from lcengine.composite.pricing import Pricing

UNITS: dict[str, int] = {
    **{f"{prefix}B": 1000**n for n, prefix in enumerate(("", "k", "M", "G", "T", "P"))},
    **{f"{prefix}iB": 1024**n for n, prefix in enumerate(("K", "M", "G", "T", "P"), 1)},
}
_BYTES = re.compile(r"([0-9.]+(?:e[0-9]+)?) *([A-Za-z]*)")


@dataclass(frozen=True, slots=True)
class Budget:
    """Prices, limits, and the file with the rates of a machine."""

    prices: Prices
    limits: Limits
    rates: Path | None

    @property
    def asked(self) -> bool:
        """Whether hours or money are asked for."""
        return self.prices.known or self.limits.cost is not None or self.rates is not None

    def on(self, machines: Machines) -> Pricing:
        """The prices on a cluster."""
        from lcengine.composite.pricing import Pricing

        return Pricing(self._rates, machines, self.prices, self.limits)

    def _rates(self, plan: CompositePlan) -> Rates:
        """The rates in the file, else those of this machine, which the file then keeps."""
        from lcengine.composite.calibration import calibrate

        if self.rates is not None and self.rates.exists():
            return Rates.load(self.rates)
        rates = calibrate(plan)
        if self.rates is not None:
            rates.save(self.rates)
        return rates


def budget(
    price_core_hour: Annotated[
        float | None, typer.Option("--price-core-hour", help="Price of a core per hour.")
    ] = None,
    price_gb: Annotated[
        float | None, typer.Option("--price-gb", help="Price of a GB read from other hosts.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", help="Refuse what would cost more than this.")
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option("--max-bytes", help="Refuse what would read more than this, e.g. 500GB."),
    ] = None,
    rates: Annotated[
        Path | None,
        typer.Option("--rates", help="JSON with speeds; written by a calibration where absent."),
    ] = None,
) -> Budget:
    """The options about money and bytes."""
    most = None if max_bytes is None else int(parse_bytes(max_bytes, "--max-bytes"))
    return Budget(Prices(price_core_hour, price_gb), Limits(max_cost, most), rates)


def parse_bytes(text: str, option: str) -> float:
    """`500GB`, `2TiB`, `1e9` as bytes, or `InputError`."""
    match = _BYTES.fullmatch(text.strip())
    if match is not None and (match[2] or "B") in UNITS:
        with suppress(ValueError):
            count: float = float(match[1]) * UNITS[match[2] or "B"]
            if math.isfinite(count):
                return count
    raise InputError(f"{option} is {text!r}, expected bytes such as 500GB, 2TiB or 1e12")
