"""Commands that train, from files to a folder that holds everything: settings, weights, coders,
figures, report.
"""
