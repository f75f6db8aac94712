"""Workloads, sweeps, replays, a server as it runs."""
