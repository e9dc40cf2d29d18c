"""Standard datasets for regression, one file per family."""
