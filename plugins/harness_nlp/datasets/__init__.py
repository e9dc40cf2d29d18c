"""Standard text datasets, one per file."""
