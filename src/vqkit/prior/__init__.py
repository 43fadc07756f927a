"""Priors over codes: a transformer that predicts any code from any others, and how codes are drawn
from it.
"""
