"""Labels: vectors, annotations, masks and coarse maps as class rasters on a product's grid."""
