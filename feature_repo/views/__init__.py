"""Feature views, one file each. Definitions only: what a feature is, where it comes from, who owns it."""
