"""Codes of many samples: a cache of them, and the files that trainers of language models read.

NumPy and pyarrow only: what is known of a model is in `cache.ModelInfo`.
"""
