"""The compression methods that come with lowrank_bench, one per file; found by scan, so a new file here is a new
method.
"""
