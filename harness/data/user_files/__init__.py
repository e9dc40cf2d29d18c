"""Datasets read from the user's files. Pass the path of a file or folder as the dataset. See
``docs/how-to/own-data.md``.
"""
