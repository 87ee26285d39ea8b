"""Captions as a stage of their own: one image is captioned once by one captioner, however many pins have it."""
