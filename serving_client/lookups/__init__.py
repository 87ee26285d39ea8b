"""Look-ups: features of pins and queries by feature service, and vectors as they are stored."""
