"""Planning: from a selection or a suite to run specs.

Planning downloads nothing and writes nothing, so that every error of the user is found before a run starts, at no cost.
A checkpoint is therefore located, and downloaded where necessary, before planning: `Selection.resolved`.

A plan depends on the selection, the installed plugins and the state of this machine, which it reads where a spec needs
it: the user's own data files (their columns, splits and digest are part of the spec), the configuration and tokenizer
files of a located checkpoint, whether a dataset is in the cache or can be fetched, and the number of available cores.
"""
