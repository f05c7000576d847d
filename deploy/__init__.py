"""Running it: embedded servers for the demo, Apache Kafka from Maven for the proofs, compose and charts."""
