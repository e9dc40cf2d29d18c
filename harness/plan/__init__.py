"""Planning: the expansion of selections and suites into run specs.

Planning does not download or write any files, so invalid requests are reported immediately, before any run starts.
`Selection.resolved` locates a checkpoint, and downloads it if necessary, before planning.

A plan depends on the selection, the installed plugins and this machine. Planning reads the configuration and tokenizer
files of a located checkpoint, and the user's data files, whose columns, splits and digest are part of the spec.
Planning also checks whether datasets are cached or can be downloaded, and how many cores are available.
"""
