"""The Kafka edge and the composition root: the only package that imports faust. No room sees one below it here.

    contract/   what is on the wire: `records`, and `decode`, how a whole fetch becomes columns; `schemas`, for others
    transport/  batches through Faust: `batching`, `deliveries`, `ledger`, `publishing`; `failures`, what errors mean
    process/    being a process: `member` of a group in its `host`, `metrics`, `health`
    serving/    event to slate over arrays; knows no Kafka      learning/  what is learned of it; knows no serving
    worker/     the composition root of a worker
    lab/        measuring and showing: `evaluation`, `demo`, `bench_*`
    commands/   the command line

Reading order: `serving.pipeline` (READ FIRST: event to slate), then what it calls: `serving.planning` (what is looked
at), `serving.values` (what passes between stages), `serving.scoring` with `query`, `retrieve`, `filter`, `rank` and
`compose`, `serving.slates`. `learning.learner` (READ SECOND: what is learned of it), from what
`serving.observation_writer` tells. `serving.ads` (READ THIRD: places for ads to decisions), with `serving.ad_requests`
and `serving.ad_pages` (what is asked), `serving.ad_contest` and `serving.ad_bidding` (who competes, and with what),
`serving.budgets` (who may spend), `serving.ad_decisions` (what is written of it) and `serving.ad_events` (what is
billed). Then how it lives: `worker.events_lane` and `worker.unstored` (publish, store, acknowledge),
`transport.deliveries` and `transport.ledger` (how batches arrive and when they are committed), `worker.worker` (what is
wired to what), `commands.cli`.
"""
