"""A static HTML site for a report. The site can be opened from disk, without a server or network access."""
