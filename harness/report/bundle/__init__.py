"""A comparison in one file: what a reader needs to believe it and to repeat it.

A bundle is a zip archive of data only::

    manifest.json           names, sizes and SHA-256 of all other files
    README.md               what this is and how to repeat it
    suite.toml              the runs, for `harness run --suite`
    environment.json        the machines and packages
    digests.json            of data, weights and plugins, by run
    records/RUN/...         record.json, arrays.npz, log.txt, audit.json, as in a results directory
    records/parity/...      verdicts of parity checks
    report/...              the table as markdown, csv and json
    site/...                the report as a site

`pack` makes one, `unpack` verifies one, `reproduce` runs it again and compares.
"""
