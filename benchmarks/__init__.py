"""Benchmarks behind the numbers in README and docs; each begins with its exact command."""
