"""Report formats, plots, the HTML site and bundles."""
