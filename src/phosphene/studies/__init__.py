"""Studies: many dreams of one photograph, on equal terms, with measures and a report.

plan          what a study is: cells (recipes) and the grids that they stand in; pure data
comparison    the plan of a comparison of architectures
sweeping      the plan of a grid over settings
choosing      the plan of a comparison of dreams that a person chose
facts         architectures, computed from the networks; the layer at a relative depth
calibrate     the step size for a wanted change
cell          one cell, from recipe to picture
workers       many cells: one by one, in processes, or on a Ray cluster
running       many cells into a folder, going on where it stopped
measures      what a picture is measured by, each with formula and source; table lays them out
claims        what the numbers say of the report's two sentences
cost          what a step of each network costs on this machine
report        the page: charts (of plots) and the command of each picture; sheet is the contact sheet
api           all of it, as `phosphene.compare` and `phosphene.sweep`
"""
