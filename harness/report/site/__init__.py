"""A static HTML site for a report, which can be opened from disk without a server or network access."""
