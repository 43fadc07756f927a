"""One file for each thing that can be trained; all of them run through `training.loop`."""
