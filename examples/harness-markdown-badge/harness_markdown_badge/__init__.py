"""Two small plugins: `badge` is a report format, `tracker` writes the progress of runs for TensorBoard."""
