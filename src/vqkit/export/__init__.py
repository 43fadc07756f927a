"""Encoder and decoder of a model as programs that run without vqkit."""
