"""Two small plugins: `badge` is a report format, `tracker` follows runs as they go on."""
