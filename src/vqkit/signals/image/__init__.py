"""Images: still pictures of one to four channels of 8 bits."""
