"""Whether one set of runs differs from another beyond doubt, metric by metric."""
