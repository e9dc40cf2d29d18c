"""Plots of a report, as Vega-Lite specifications built with altair.

`points` and `run_points` select the data for the plots of a report and of a single run. `charts` and `run_charts`
define the charts, `theme` defines the colors, and `figure` writes a plot to a file.
"""
