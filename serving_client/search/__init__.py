"""Search: candidates by vector and by words, scored, blended with engagement, one page of them."""
