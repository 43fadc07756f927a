"""Recordings: sound of one or two channels, of any length."""
