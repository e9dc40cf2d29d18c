"""Dataset handling: downloads, user files, caches, checks and batches."""
