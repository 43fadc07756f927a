"""A trained model as a record, its folder, and what encodes, decodes, writes and reads with it."""
