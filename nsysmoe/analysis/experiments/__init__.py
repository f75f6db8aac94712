"""Workloads, sweeps, replays of requests, and what goes with what."""
