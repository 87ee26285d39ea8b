"""Vector stores behind one small port; works alone, imports no other room."""
