"""What a feature is: raw-table contracts, aggregates, pin text, lexical features, Feast definitions."""
