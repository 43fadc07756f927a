"""One file per verb: a function from a model and values to a result.

Nothing here reads a path or prints.
"""
