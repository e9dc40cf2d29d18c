"""Plots for reports, as Vega-Lite specifications built with altair.

`points` and `run_points` select the data for the plots of a report and of a single run, respectively. `charts` and
`run_charts` define the charts, `theme` defines the colors, and `figure` exports a plot to a file.
"""
