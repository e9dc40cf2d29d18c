"""Datasets: download, user files, caches, checks and batches."""
