"""How old is what slates are made of: what waits unread, and what every worker reads whole."""

from deploy.boards.panels import Board, Mark, Panel, Query, Row, lines

_ROLE = 'and on (*, instance) marquee_build_info{*, role="ROLE"}'


def _quantiles(series: str, label: str) -> Query:
    return Query(f"histogram_quantile(0.99, sum by (le, {label}) (rate({series}_bucket{{*}}[*])))", f"{{{{{label}}}}}")


_LAG = Row(
    "What waits unread",
    (
        lines(
            "Lag in seconds",
            (
                "Age of the first unread record of the lane's slowest partition; 0 where none waits. This is what an "
                "alert looks at."
            ),
            "s",
            Query("max by (lane) (marquee_lag_seconds{*})", "{{lane}}"),
            marks=(Mark(0, "green"), Mark(60, "red")),
        ),
        lines(
            "Lag in records",
            "Records that wait, per lane. An autoscaler adds workers by it, up to the number of partitions.",
            "short",
            Query("sum by (lane) (max by (*, lane, topic, partition) (marquee_lag_records{*}))", "{{lane}}"),
        ),
        Panel(
            kind="bars",
            title="Furthest behind",
            description=(
                "The ten slowest partitions. One alone: a hot user, or a paused partition. All: too few workers."
            ),
            unit="s",
            queries=(Query("topk(10, max by (lane, partition) (marquee_lag_seconds{*}))", "{{lane}} {{partition}}"),),
        ),
    ),
)
_PARTITIONS = Row(
    "Partitions",
    (
        lines(
            "Owned partitions",
            "How many partitions each process reads. Uneven for long: see what it says at /readyz.",
            "none",
            Query("sum by (instance, topic) (marquee_partitions_assigned{*})", "{{instance}} {{topic}}"),
        ),
        lines(
            "Not read by anybody",
            "Partitions without a live owner, and paused ones: nearly all of their records were unreadable.",
            "none",
            Query("sum by (topic) (max by (topic) (marquee_partitions_unowned{*}))", "no owner: {{topic}}"),
            Query("count(marquee_partition_paused{*}) or 0 * count(marquee_build_info{*})", "paused"),
            marks=(Mark(0, "green"), Mark(1, "red")),
        ),
        lines(
            "Moves and losses",
            "Rebalances of the group; and records that retention removed before they were read, which are lost.",
            "cps",
            Query("sum(rate(marquee_rebalances_total{*}[*]))", "rebalances"),
            Query("sum by (topic) (rate(marquee_records_expired_total{*}[*]))", "expired: {{topic}}"),
        ),
        lines(
            "Records read",
            "Records delivered to each lane. 0 while lag grows: the lane is held up.",
            "cps",
            Query("sum by (topic) (rate(marquee_records_consumed_total{*}[*]))", "{{topic}}"),
            area=True,
            width=6,
        ),
        lines(
            "Records in a batch",
            "Mean size. Batches grow when workers fall behind, which makes them cheaper each.",
            "none",
            Query(
                "sum by (topic) (rate(marquee_batch_records_sum{*}[*]))"
                " / (sum by (topic) (rate(marquee_batch_records_count{*}[*])) > 0)"
                " or 0 * sum by (topic) (rate(marquee_batch_records_count{*}[*]))",
                "{{topic}}",
            ),
            width=6,
        ),
        lines(
            "Oldest batch under way",
            "Age of the oldest batch that is not acknowledged. The process ends itself when one is stuck.",
            "s",
            Query("max by (instance, topic) (marquee_oldest_unit_seconds{*})", "{{instance}} {{topic}}"),
            width=6,
        ),
        lines(
            "Late and misdated",
            "Events too old for what is known of their person, and such without a publish time that can be: clocks.",
            "cps",
            Query('sum by (fate) (rate(marquee_events_total{*, fate="late"}[*]))', "{{fate}}"),
            Query("sum(rate(marquee_events_misdated_total{*}[*]))", "misdated"),
            width=6,
        ),
    ),
)
_STORES = Row(
    "Kafka and Redis",
    (
        lines(
            "Redis round trips, 99 %",
            "One exchange with Redis, by who asks. Slow for all: Redis, or the way to it.",
            "s",
            _quantiles("marquee_redis_round_trip_seconds", "client"),
        ),
        lines(
            "Redis errors",
            "Exchanges that failed, by why; they are tried again. Fenced: another worker owns the partition now.",
            "cps",
            Query("sum by (kind) (rate(marquee_redis_errors_total{*}[*]))", "{{kind}}"),
        ),
        lines(
            "Redis connections opened",
            "More than a few at the start are reconnects.",
            "cps",
            Query("sum by (client) (rate(marquee_redis_connections_total{*}[*]))", "{{client}}"),
        ),
        lines(
            "Publishing, 99 %",
            "From handing a batch over to the acknowledgement of all in-sync replicas.",
            "s",
            _quantiles("marquee_publish_seconds", "publisher"),
            width=6,
        ),
        lines(
            "Publishing failed",
            "Batches the broker did not take; they are sent again. Refused: rights or size, by the log line.",
            "cps",
            Query("sum by (publisher, kind) (rate(marquee_publish_errors_total{*}[*]))", "{{publisher}} {{kind}}"),
            width=6,
        ),
        lines(
            "Brokers silent",
            "Time since any broker answered each process.",
            "s",
            Query("max by (instance) (marquee_brokers_silent_seconds{*})", "{{instance}}"),
            marks=(Mark(0, "green"), Mark(30, "red")),
            width=6,
        ),
        lines(
            "Redis memory",
            "What Redis uses, and what it may; 0 is no limit. At the limit it refuses writes, and evicts nothing.",
            "bytes",
            Query("max by (state) (marquee_redis_memory_bytes{*})", "{{state}}"),
            width=6,
        ),
    ),
)
_SNAPSHOTS = Row(
    "Snapshots and index",
    (
        lines(
            "Snapshot age",
            (
                "Since the snapshot that serves was made, per worker. Workers that differ for long: one cannot fetch "
                "or was refused."
            ),
            "s",
            Query(
                f"max by (instance) (marquee_snapshot_age_seconds{{*}} {_ROLE.replace('ROLE', 'worker')})",
                "{{instance}}",
            ),
        ),
        lines(
            "Snapshots taken",
            (
                "Announced snapshots that each worker swapped in or refused. A refused one leaves the one before it "
                "serving."
            ),
            "cps",
            Query("sum by (result) (rate(marquee_snapshot_swaps_total{*}[*]))", "{{result}}"),
        ),
        lines(
            "Making and taking a snapshot, 99 %",
            "What the learner needs to build one, and a worker to fetch, check and swap it.",
            "s",
            Query(
                "histogram_quantile(0.99, sum by (le) (rate(marquee_learner_refresh_seconds_bucket{*}[*])))", "build"
            ),
            Query("histogram_quantile(0.99, sum by (le) (rate(marquee_snapshot_swap_seconds_bucket{*}[*])))", "swap"),
        ),
        lines(
            "Items in the index",
            "What vector search can find, per worker; and what the learner has counts of.",
            "short",
            Query("max by (instance) (marquee_index_items{*})", "{{instance}}"),
            Query("max(marquee_learner_items{*})", "learned"),
            width=6,
        ),
        lines(
            "Index age",
            "Since the index that serves was built, per worker.",
            "s",
            Query("max by (instance) (marquee_index_age_seconds{*})", "{{instance}}"),
            width=6,
        ),
        lines(
            "Checkpoint age",
            "Since the learner wrote what it knows. So much is learned again after a kill.",
            "s",
            Query("max(marquee_checkpoint_age_seconds{*})", "checkpoint"),
            width=6,
        ),
        lines(
            "Behind the newest snapshot",
            "Of each worker that has one. More than 0 for long: it cannot fetch what others serve, or has one pinned.",
            "none",
            Query(
                "-((max by (instance) (marquee_snapshot_version{*}) > 0)"
                " - on () group_left () max(marquee_snapshot_version{*}))"
                " or 0 * max by (instance) (marquee_snapshot_version{*})",
                "{{instance}}",
            ),
            width=6,
        ),
    ),
)
_CONTROL = Row(
    "Control topics: catalogue, campaigns, counters, models",
    (
        lines(
            "Unread",
            (
                "Records behind the end of what every process reads whole. A removed item is offered until its record "
                "is read."
            ),
            "short",
            Query("max by (topic) (marquee_control_unread_records{*})", "{{topic}}"),
        ),
        lines(
            "Since the broker answered",
            "Time since the leader of the topic's slowest partition answered. Grows when a broker is away.",
            "s",
            Query("max by (topic) (marquee_control_age_seconds{*})", "{{topic}}"),
            marks=(Mark(0, "green"), Mark(60, "red")),
        ),
        lines(
            "Catalogue removals",
            (
                "Nulls on the catalogue's topic: of known items, and of names nobody knows, which a producer should "
                "look at."
            ),
            "cps",
            Query("sum by (result) (rate(marquee_catalogue_removals_total{*}[*]))", "{{result}}"),
        ),
    ),
)
_GPU = Row(
    "Devices",
    (
        Panel(
            kind="bars",
            title="Index by kind and device",
            description=(
                "How many workers search with which index on which device. A GPU role that says cpu lost its GPU."
            ),
            unit="none",
            queries=(Query("count by (kind, device) (marquee_index_info{*})", "{{kind}} on {{device}}"),),
        ),
        lines(
            "GPU memory in use",
            "Of each GPU that a process sees. Several processes may share one.",
            "percentunit",
            Query(
                'max by (instance, gpu) (marquee_gpu_memory_bytes{*, state="used"})'
                ' / max by (instance, gpu) (marquee_gpu_memory_bytes{*, state="total"})',
                "{{instance}} GPU {{gpu}}",
            ),
            may_be_empty="there are no series where there is no NVIDIA driver",
        ),
        lines(
            "Event loop late",
            (
                "How late the main loop wakes, 99 %: it sends heartbeats and answers probes. Above seconds a worker "
                "loses its partitions."
            ),
            "s",
            Query(
                "histogram_quantile(0.99, sum by (le, instance) (rate(marquee_event_loop_lag_seconds_bucket{*}[*])))",
                "{{instance}}",
            ),
        ),
    ),
)

BOARD = Board(
    "freshness",
    "Marquee: freshness and lag",
    "How far behind it is, and how old what slates are made of.",
    (_LAG, _PARTITIONS, _STORES, _SNAPSHOTS, _CONTROL, _GPU),
)
