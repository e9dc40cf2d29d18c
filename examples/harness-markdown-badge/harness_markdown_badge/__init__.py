"""Two small plugins: `badge` is a report format, and `tracker` writes the progress of runs for TensorBoard."""
