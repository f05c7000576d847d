"""Which ad may show, what it pays, within whose budget: pure decisions over arrays. No I/O, no clock, no randomness."""
