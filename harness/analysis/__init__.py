"""From run records to tables, comparisons and histories."""
