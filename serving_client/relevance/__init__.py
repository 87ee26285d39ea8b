"""Five-level relevance of candidates to a query, and what stands in for a missing part."""
