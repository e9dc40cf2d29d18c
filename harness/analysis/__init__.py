"""Tables, comparisons and histories computed from run records."""
