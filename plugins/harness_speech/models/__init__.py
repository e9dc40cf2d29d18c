"""Speech models as data: sizes, canonical parameters, cost. One file a family."""
