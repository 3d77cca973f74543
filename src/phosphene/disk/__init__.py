"""Dreams of pictures larger than memory: their rasters, their journal, and the same loop over them."""
