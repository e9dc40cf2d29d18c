"""Model families for feature vectors, one file each."""
