"""Declarations of models for feature vectors, one file per family."""
