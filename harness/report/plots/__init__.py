"""Figures of a report, as Vega-Lite specifications by altair.

`points` says what is shown of a report, `run_points` of a single run, `charts` and `run_charts` how, `theme` in which
colors; `figure` draws one to a file.
"""
