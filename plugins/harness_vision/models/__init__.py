"""Image model families, one file each."""
