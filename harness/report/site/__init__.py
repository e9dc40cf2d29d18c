"""A static HTML site of a report, which opens from disk without a server or a network."""
