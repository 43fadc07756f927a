"""Text: bytes of files, of any encoding."""
