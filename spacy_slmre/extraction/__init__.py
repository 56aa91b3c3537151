"""Extraction from files to files, resumable and in constant memory.

The inputs are split into shards of n documents. Workers compute shards, in this process or on Ray, and write each
result atomically to the run folder. The output is the concatenation of all shards in input order.
"""
