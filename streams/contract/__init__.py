"""What is on the wire: the records, how they are read, and what becomes of those that cannot be."""
