"""Maps of classes on another grid: majority, nearest or shares, lazily and as products."""
