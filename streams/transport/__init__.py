"""Batches through Faust and aiokafka: fetched, handed out, acknowledged, published."""

from streams.transport.header_names import accept_any

accept_any()
