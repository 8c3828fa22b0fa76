"""A model over a product of any size: a map of classes, on the tile engine."""
