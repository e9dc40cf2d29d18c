"""Datasets, including downloads, user files, caches, checks and batches."""
