"""Procedures on whole results directories: merging, pruning and verification."""
