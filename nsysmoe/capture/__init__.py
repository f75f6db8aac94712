"""Profiled runs of vLLM on a GPU node, EPLB off and on, in the folders that ``compare`` reads.

``spec`` and ``plan`` are pure; ``process`` alone starts programs; ``node/`` holds the scripts that
run beside vLLM and import nothing of nsysmoe.
"""
