"""Broken inputs in great number: mutants of real traces and of the files beside them.

``python -m tests.fuzz --help`` runs as many as one likes; ``test_mutants.py`` runs 500 of them.
"""
