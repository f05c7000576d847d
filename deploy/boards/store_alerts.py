"""What somebody is told of what it stands on: brokers, Redis, topics that everybody reads, and who asks over HTTP."""

from deploy.boards.alerting import Alert, Bound, above, share

STORE_ALERTS = (
    Alert(
        name="MarqueeHttpErrors",
        severity="page",
        lasting="5m",
        any_of=above(
            share(
                'marquee_http_requests_total{*, route!="other", code="5xx"}',
                'marquee_http_requests_total{*, route!="other"}',
                "5m",
            ),
            0.05,
        ),
        summary="{{ $value | humanizePercentage }} of requests over HTTP to {{ $labels.job }} fail",
        description="The store, a broker or a full queue: the answers say which, with how long to wait.",
    ),
    Alert(
        name="MarqueeRedisErrors",
        severity="page",
        lasting="5m",
        any_of=above('sum by (*, kind) (rate(marquee_redis_errors_total{*, kind!="fenced"}[5m]))', 0.2),
        summary="Redis fails {{ $labels.job }} {{ $value | humanize }} times a second: {{ $labels.kind }}",
        description=(
            "Partitions pause and try again; requests get what is popular. Nothing is lost while Kafka keeps it."
        ),
    ),
    Alert(
        name="MarqueeRedisMemory",
        severity="ticket",
        lasting="10m",
        any_of=above(
            'max by (*) (marquee_redis_memory_bytes{*, state="used"})'
            ' / (max by (*) (marquee_redis_memory_bytes{*, state="max"}) > 0)'
            ' or 0 * max by (*) (marquee_redis_memory_bytes{*, state="used"})',
            0.85,
        ),
        summary="Redis of {{ $labels.job }} is {{ $value | humanizePercentage }} full",
        description="At its limit it refuses writes, as it should: events wait then, and slates are popular ones.",
    ),
    Alert(
        name="MarqueeBrokersSilent",
        severity="page",
        lasting="2m",
        any_of=above("max by (*, instance) (marquee_brokers_silent_seconds{*})", 30),
        summary="No broker has answered {{ $labels.instance }} for {{ $value | humanizeDuration }}",
        description="Nothing is read or published. It goes on alone once brokers answer.",
    ),
    Alert(
        name="MarqueePublishErrors",
        severity="page",
        lasting="5m",
        any_of=above("sum by (*, publisher, kind) (increase(marquee_publish_errors_total{*}[10m]))", 3),
        summary="{{ $labels.job }} cannot publish {{ $labels.publisher }}: {{ $labels.kind }}",
        description="Publications go on failing: each is sent again after a timeout, and holds up what comes after it.",
    ),
    Alert(
        name="MarqueeControlBehind",
        severity="ticket",
        lasting="5m",
        any_of=(
            (Bound("max by (*, topic) (marquee_control_unread_records{*})", ">", 1000),),
            (Bound("max by (*, topic) (marquee_control_age_seconds{*})", ">", 60),),
            (Bound("min by (*, topic) (marquee_control_read{*})", "<", 1),),
        ),
        summary="{{ $labels.job }} is behind on {{ $labels.topic }}",
        description="Removed items and stopped campaigns are offered until their records are read.",
    ),
)
