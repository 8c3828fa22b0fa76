"""A simulated Sentinel-2 L2A archive whose truth is known, and servers to put it behind HTTP.

`simulate` writes cloud-optimised GeoTIFFs, a static STAC catalogue and the truth. It reproduces
what a compositing engine has to survive: broken and overcast skies, soft cloud edges, shadows, a
scene classification that errs, processing baselines with and without the -1000 offset (one of them
mis-described by its catalogue), 20 m bands, swath edges, and granules that overlap.

What it does not model:

- atmosphere and sensor beyond haze, white noise and rounding: no point spread function, no
  misregistration between dates, no band-to-band parallax, no saturation, no adjacency effect, no
  aerosol residual over the whole scene, no striping;
- directional reflectance (BRDF), topography, cast shadows of trees and buildings, sun glint, snow,
  flooding, dew or soil moisture that change from date to date;
- canopies other than green: ripe cereals, flowering rapeseed and stubble look like soil;
- mixed pixels: boundaries follow the 10 m grid (20 m bands are block means of it);
- cloud height that varies within an overpass, shadows of thin cloud, multi-layer clouds. Shadows
  of clouds outside the mosaic are those that leave it on the opposite side;
- errors of the classification that depend on the spectra: they are drawn at random, correlated in
  space, by opacity and kind of ground, as often as validations of the real one found them
  (`clouds.ACCURACY`). Snow (class 11) and saturated pixels (class 1) never occur;
- the coastal and water-vapour bands, viewing geometry, quality rasters and product metadata files.
"""

from __future__ import annotations

from lcengine.simulate.archive import Simulation, simulate
from lcengine.simulate.covers import LEGEND, CoverType
from lcengine.simulate.options import SimulationOptions
from lcengine.simulate.sentinel2 import BANDS
from lcengine.simulate.serve import FileServer, StacServer
from lcengine.simulate.stac import items_collection

__all__ = [
    "BANDS",
    "LEGEND",
    "CoverType",
    "FileServer",
    "Simulation",
    "SimulationOptions",
    "StacServer",
    "items_collection",
    "simulate",
]
