"""Networks and bottlenecks. Nothing here knows of optimisers, loggers, files or kinds of signal."""
