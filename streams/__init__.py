"""The Kafka edge and the composition root: the only package that imports faust.

Reading order: `pipeline` (READ FIRST: event to slate) and `learning` (READ SECOND: what is learned from it); then
`records` and `decode` (the contract, and how it becomes columns), `planning` (what is looked at), `scoring` (sources,
features and ranker behind one call), `model` (what serves), `observing` and `observations` (what the learner is told),
`agents` and `teaching` (the shells that publish, store and acknowledge), `batching` and `ledger` (how batches arrive
and when they are committed), `app` (what is wired to what), `cli`.
"""
