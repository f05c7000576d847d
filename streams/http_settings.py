"""How processes are spoken to over HTTP, as settings."""

import ssl

from pydantic import Field, model_validator

from streams.addresses import File, Host, Port
from streams.half_lives import Group
from streams.secret_files import Secret


class Http(Group):
    """Health pages, metrics, and what is asked and told over HTTP."""

    host: Host = "127.0.0.1"
    """Address to listen on; a probe from outside a container needs `0.0.0.0` or `::`."""
    port: Port = 6066
    """Port to listen on; 0 takes a free one."""
    token: Secret | None = None
    """What `/v1` wants as `Authorization: Bearer`; probes and metrics are open always. Unset: everybody may ask."""
    tls_cert: File | None = None
    """Certificate with its chain, PEM; with it all pages are https."""
    tls_key: File | None = None
    """Its private key."""
    max_body_bytes: int = Field(default=1_048_576, ge=1_024, le=64 << 20)
    """A larger body is refused."""
    max_connections: int = Field(default=512, ge=8, le=65_536)
    """Connections at a time; one more takes the place of one that waits, or is answered 503."""
    max_events: int = Field(default=1_000, ge=1, le=100_000)
    """Most events in one body."""

    @model_validator(mode="after")
    def _may_speak_tls(self) -> "Http":
        self.tls()
        return self

    def tls(self) -> ssl.SSLContext | None:
        """What a server of https is started with; None without a certificate."""
        if not self.tls_cert and not self.tls_key:
            return None
        if not self.tls_cert or not self.tls_key:
            raise ValueError("tls_cert and tls_key are set both or not at all")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key, "")
        except (ssl.SSLError, ValueError) as error:
            said = getattr(error, "reason", None) or type(error).__name__
            raise ValueError(f"tls_cert {self.tls_cert} and tls_key do not go together ({said})") from None
        return context
