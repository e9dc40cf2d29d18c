"""Two small plugins: `badge` is a report format, and `tracker` logs runs for TensorBoard."""
