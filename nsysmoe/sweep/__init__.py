"""Sweeps: which runs to make, and one table of what they measured."""
