"""Studies: many dreams of photographs, on equal terms, with measures and a report.

study     what a study is: cells (recipes), the grids that they stand in, and what is compared where nobody says
plans     what to compare: architectures, a grid over settings, dreams that a person chose
run       cells into a folder, going on where it stopped, one by one, in processes or on a Ray cluster
measure   what a picture and a step are measured by, and what may be said of the numbers
page      the report, with its plots and its contact sheet
survey    several photographs: a study of each, and one page about all
api       all of it, as `phosphene.compare`, `phosphene.sweep` and `phosphene.survey`
"""
