"""Statistical comparison of two sets of runs, metric by metric."""
