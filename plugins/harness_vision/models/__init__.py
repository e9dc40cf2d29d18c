"""Declarations of image models, one file per family."""
