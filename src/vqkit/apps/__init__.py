"""One file per verb: a function from an artifact and inputs to a result. Nothing here prints."""
