"""Datasets read from the user's files. To use one, pass its path as the dataset. See ``docs/how-to/own-data.md``."""
