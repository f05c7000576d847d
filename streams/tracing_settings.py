"""How batches and stages are traced, as settings."""

from pydantic import Field

from streams.half_lives import Group


class Tracing(Group):
    """Spans of batches and stages for OpenTelemetry, which the extra `otel` brings; off without an endpoint."""

    endpoint: str | None = Field(default=None, pattern="^https?://.+", max_length=500)
    """Who collects them by OTLP over HTTP: `http://collector.example:4318`. Nothing is traced where it is unset."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of batches that are traced."""
    links: int = Field(default=32, ge=0, le=128)
    """Events of a batch whose traces it is linked to, at most."""
