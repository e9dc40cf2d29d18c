"""Standard speech datasets, one per file."""
