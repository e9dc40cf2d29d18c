"""The rules, a file for each kind of thing that plugins bring."""
