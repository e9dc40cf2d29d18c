"""Expansion of selections and suites into run specs.

Planning does not download or write any files. Invalid requests are therefore reported immediately, before any run
starts. `Selection.resolved` locates a checkpoint before planning, and downloads it if necessary.

A plan depends on the selection, the installed plugins and this machine. Planning reads the configuration and tokenizer
files of a located checkpoint. Planning also reads the user's data files, because their columns, splits and digest are
part of the spec. Planning also checks how many cores are available, and whether each dataset is cached or can be
downloaded.
"""
