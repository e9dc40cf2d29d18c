"""Plots for reports, as Vega-Lite specifications built with altair.

`points` selects the data for the plots of a report, and `run_points` selects the data for the plots of a single run.
`charts` and `run_charts` define the charts, `theme` defines the colors, and `figure` exports a plot to a file.
"""
