"""Lists of pins for somebody: related pins, the home feed, boards; near-duplicates folded, diversified."""
