"""Data on its way to a session: batches and digests."""
