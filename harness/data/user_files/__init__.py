"""Datasets from the user's files: a path in place of a dataset's name; see ``docs/how-to/own-data.md``."""
