"""The HTTP service over a client. ``pinfeather serve`` runs it; docs/service.md describes it."""
