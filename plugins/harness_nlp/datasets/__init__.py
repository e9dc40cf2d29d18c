"""Standard datasets of texts, a file each."""
