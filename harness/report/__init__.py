"""Report formats, plots, the site, and bundles."""
