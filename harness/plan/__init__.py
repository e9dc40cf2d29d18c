"""Planning: turning selections and suites into run specs.

Planning downloads nothing and writes nothing, so that invalid requests are reported immediately, before any run starts.
For this reason, `Selection.resolved` locates a checkpoint, and downloads it if necessary, before planning.

A plan depends on the selection, the installed plugins and this machine. Planning reads the user's data files (their
columns, splits and digest are part of the spec), the configuration and tokenizer files of a located checkpoint, whether
a dataset is in the cache or can be downloaded, and the number of available cores.
"""
