"""Standard datasets of speech, a file each."""
