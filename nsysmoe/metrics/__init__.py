"""Pure functions from polars frame to polars frame; one file for each question."""
