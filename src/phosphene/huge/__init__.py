"""Dreams of pictures larger than memory: a photograph's file and a recipe in, a file out, by way of a folder on disk.

The folder holds the order (what was asked for), the rasters, and a journal. Whoever finds it can go on from the last
whole step, and ends in the same bytes.
"""
