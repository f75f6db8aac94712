"""Placement and its advice."""
