"""Commands, grouped by the room they speak to; thin: parse, call one library function, print."""
