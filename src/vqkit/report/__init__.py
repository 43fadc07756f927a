"""HTML report, model card and images from the results of a run.

Reads results only; matplotlib is imported late.
"""
