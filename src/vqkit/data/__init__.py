"""Sets of items of any kind of signal: splits, orders and batches as pure functions of content and
seed.
"""
