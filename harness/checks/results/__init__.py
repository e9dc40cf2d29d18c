"""Merging, pruning and verification of results directories."""
