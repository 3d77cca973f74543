"""Studies: many dreams of one photograph, on equal terms, with measures and a report.

plan       what a study is: cells (recipes) and the grids that they stand in; pure data
grids      the comparison of architectures and the sweep over settings, as such data
facts      architectures, computed from the networks; a layer at a relative depth; the cost of a step
cell       one cell, from recipe to picture; calibrate finds its step size
workers    many cells: one by one, in processes, or on a Ray cluster
running    many cells into a folder, going on where it stopped
measures   what a picture is measured by, each with formula and source; table lays them out
claims     what the numbers say of the report's two sentences
report     the page, with its plots (plots.py) and the contact sheet (sheet.py)
api        all of it, as `phosphene.compare` and `phosphene.sweep`
"""
