"""Standard tables for regression, a file each family."""
