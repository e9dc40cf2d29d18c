"""Bundles. A bundle is a single file that stores a comparison and everything needed to verify and reproduce it.

A bundle is a zip archive that contains only data::

    manifest.json           name, size and SHA-256 of every other file
    README.md               description, and instructions to reproduce the runs
    suite.toml              the runs, for `harness run --suite`
    environment.json        machines and package versions
    digests.json            digests of data, weights and plugins of each run
    records/RUN/...         record.json, arrays.npz, log.txt, audit.json, as in a results directory
    records/parity/...      verdicts of parity checks
    report/...              the table as Markdown, CSV and JSON
    site/...                the report as an HTML site

`pack` writes a bundle, `unpack` verifies and extracts a bundle, and `reproduce` compares the runs in a bundle with new
runs.
"""
