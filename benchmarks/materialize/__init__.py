"""The materializer measured: how it finds what changed, and beside other indexers."""
