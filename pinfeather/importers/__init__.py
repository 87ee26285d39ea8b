"""Public data sets as raw tables."""
