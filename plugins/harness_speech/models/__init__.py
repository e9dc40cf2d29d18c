"""Declarations of speech models: sizes, canonical parameters and cost, one file per family."""
