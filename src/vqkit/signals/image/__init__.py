"""Images: still images of one to four channels of 8 bits."""
