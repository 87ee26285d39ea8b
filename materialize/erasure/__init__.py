"""Erasure of users, pins and queries from everything that is derived, and the proof that nothing is left."""
