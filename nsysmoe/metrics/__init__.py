"""Pure functions from frames or arrays to the same: one file for each question."""
