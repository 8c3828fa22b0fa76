"""SEN12MS: 180,662 patches of Sentinel-1, Sentinel-2 and MODIS land cover, 256 x 256 of 10 m.

As published (Schmitt, Hughes, Qiu and Zhu 2019, ISPRS Annals IV-2/W7):
`ROIs1158_spring/s2_1/ROIs1158_spring_s2_1_p30.tif`, and likewise `s1_1` and `lc_1`; the seasons are
ROIs1158_spring, ROIs1868_summer, ROIs1970_fall and ROIs2017_winter. Label images have four bands,
the schemes of MCD12Q1: IGBP, LCCS land cover, land use and surface hydrology.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from lcengine.legends import SEN12MS as SCHEMES
from lcengine.legends import Legend
from lcengine.samples.folders.near import BUFFER
from lcengine.samples.folders.sentinel import Triplets, led_to


class Sen12MS(Triplets):
    """The folder that holds the seasons, or a part of it.

    `legend`: a scheme of the labels (igbp, lccs-lc, lccs-lu, lccs-sh), or one that a crosswalk
    leads to from IGBP (dfc2020, dfc2020-no-savanna, crop). `inputs`, `buffer`: see `Triplets`.
    """

    kind = "sen12ms"
    label = "lc"
    label_bands = (len(SCHEMES),)
    seasons = re.compile(r"ROIs(?!0000)\d+_[a-z]+")
    example = "ROIs1158_spring/s2_1/ROIs1158_spring_s2_1_p30.tif"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        legend: str = "igbp",
        inputs: Sequence[str] = ("s1", "s2"),
        buffer: float = BUFFER,
        skip_unpaired: bool = False,
    ) -> None:
        super().__init__(
            path,
            legend=led_to("SEN12MS", SCHEMES, legend),
            inputs=inputs,
            buffer=buffer,
            skip_unpaired=skip_unpaired,
        )

    @property
    def published(self) -> Legend:
        """The scheme that the labels are of, or come from."""
        return self.legend if self.legend in SCHEMES else SCHEMES[0]

    def mask_bands(self) -> Sequence[int] | None:
        """The band of that scheme."""
        return (SCHEMES.index(self.published) + 1,)
