"""A static site of a report: files that open from disk, without a server and without the network."""
