"""The relevance tables: teacher, student and what makes them, one command each; see docs/results.md."""
