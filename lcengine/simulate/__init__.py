"""One simulated landscape whose truth is known, its satellites, and servers for their archives.

The landscape (`landscape`) has fields of eight crops and meadows in Voronoi holdings, roads,
settlements with buildings and gardens, woods, water with reeds, and hills with savanna, shrubs,
rock and permanent snow: all ten classes of DFC2020, evaluated from coordinates at any resolution.
No real place looks like it: classes that never meet lie side by side so that each is in every
mosaic, with shares that are set, not found.

`simulate` writes cloud-optimised GeoTIFFs, a static STAC catalogue and the truth. Sentinel-2 L2A
reproduces what a compositing engine has to survive: broken and overcast skies, soft cloud edges,
cirrus, haze, shadows, a scene classification that errs, processing baselines with and without the
-1000 offset (one of them mis-described by its catalogue), 20 m bands, swath edges, and granules
that overlap, in two UTM zones if asked. Sentinel-1 (`sentinel1`, `backscatter`), PlanetScope
(`planet`, `dove`), coarse labels (`coarse`) and vector labels (`vectors`) say in their modules what
they model and what not; docs/world.md says it of all.

What Sentinel-2 does not model:

- atmosphere and sensor beyond haze, white noise and rounding: no point spread function, no
  misregistration between dates, no band-to-band parallax, no saturation, no adjacency effect, no
  aerosol residual over the whole scene, no striping;
- directional reflectance (BRDF), topography (hills are a pattern of covers, not of heights), cast
  shadows of trees and buildings, sun glint; snow that falls or melts, flooding, tides, dew or soil
  moisture that change from date to date;
- canopies other than green: ripe cereals, flowering rapeseed and stubble look like soil. Rotations,
  catch crops, failed crops, weeds, wheel tracks;
- rivers, railways, single trees, hedges, glasshouses, solar farms; buildings are rectangles, roads
  run along holdings only, and all of one class is made of one spectrum and varies in brightness,
  green cover and dates alone;
- mixed pixels: a 10 m pixel shows what lies under its centre (20 m bands are block means of it);
- anything beyond 20 km that is new: there random fields (textures after 10 km) and after 58 km
  holdings repeat themselves, which bounds the memory. A process holds one granule of some 20 km,
  never a mosaic;
- cloud height that varies within an overpass, shadows of thin cloud, multi-layer clouds. Shadows
  of clouds outside the mosaic are those that leave it on the opposite side;
- errors of the classification that depend on the spectra: they are drawn at random, correlated in
  space, by opacity and kind of ground, as often as validations of the real one found them
  (`clouds.ACCURACY`). Snow (class 11) is missed only where it is taken for cloud or shadow, as
  often as other ground is; saturated pixels (class 1) never occur;
- the coastal and water-vapour bands, viewing geometry, quality rasters and product metadata files.
"""

from __future__ import annotations

from lcengine.simulate.archive import Simulation, simulate
from lcengine.simulate.covers import LEGEND, CoverType
from lcengine.simulate.options import SENSORS, SimulationOptions
from lcengine.simulate.sentinel2 import BANDS
from lcengine.simulate.serve import FileServer, StacServer
from lcengine.simulate.stac import items_collection

__all__ = [
    "BANDS",
    "LEGEND",
    "SENSORS",
    "CoverType",
    "FileServer",
    "Simulation",
    "SimulationOptions",
    "StacServer",
    "items_collection",
    "simulate",
]
