"""From a query to its vector: the tower of a space, micro-batches, and the cache before it."""
