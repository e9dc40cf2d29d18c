"""The user's own data: a file or a folder where a dataset's name may stand; see ``docs/how-to/own-data.md``."""
