"""Logs of requests, sent again to a server with the timing that they had.

``metrics.replay`` walks a trace again; this sends requests.
"""
