"""What the scripts of benchmarks/ share: claims, image sets, short runs, peers, and measures of
images.
"""
