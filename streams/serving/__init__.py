"""Event to slate, over arrays. Knows no Kafka."""
