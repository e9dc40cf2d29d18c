"""Datasets read from the user's files. A path is given instead of a dataset name. See ``docs/how-to/own-data.md``."""
