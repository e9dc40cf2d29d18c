"""Datasets from the user's files, given as a path instead of a dataset name. See ``docs/how-to/own-data.md``."""
