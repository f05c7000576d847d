"""Batches through Faust and aiokafka: fetched, handed out, acknowledged, published."""
