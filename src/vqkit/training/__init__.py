"""From data to trained weights: the loop, its guards, the tasks, and everything that touches
several processes.
"""
