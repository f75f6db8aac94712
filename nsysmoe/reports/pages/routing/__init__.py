"""Routing logs."""
