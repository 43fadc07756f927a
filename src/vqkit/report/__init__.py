"""HTML report, model card and pictures from the results of a run. Reads results only; matplotlib is imported late."""
