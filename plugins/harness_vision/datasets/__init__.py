"""Standard image datasets, one file per family."""
