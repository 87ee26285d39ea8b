"""How vectors and levels are judged: metrics, folds, intervals."""
