"""What changed, into Qdrant: fingerprints, ledger, plan, run, audit, spaces, stores, Feast online store."""
