"""Requests as they are served: batches, steps, latencies."""
