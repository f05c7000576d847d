"""Errors of this package, as facts.

EmbeddingsError
├── StoreUnavailable   Redis did not answer, or answered something transient: retry the whole batch, folding twice is
│                      harmless
├── StoreRefused       Redis answers and will not do it: rights, password, a cluster. Stop, say what is needed
├── LedgerClosed       the spend ledger lost its data and is not rebuilt: sell nothing, go on with everything else
├── AlreadyCounted     the spend ledger has counted part of a tally: count what is above `covered`, and call again
├── Fenced             another worker owns the partition now: drop the batch unacknowledged, its owner applies it
├── UnreadableState    a stored value has a version or a length this release does not know: stop, say which
├── SnapshotRefused    checksum, shape or a non-finite number: keep the snapshot in use
│   └── SnapshotUnreachable   it cannot be fetched now: keep the one in use, and try again while it is the newest
└── IdCollision        two item names share a 40-bit id: the later one is refused at catalogue load
"""


class EmbeddingsError(Exception):
    """Root of what this package raises on purpose."""


class StoreUnavailable(EmbeddingsError):
    """Redis missed its deadline or answered something transient. The batch is retried whole."""


class StoreRefused(EmbeddingsError):
    """Redis answers and will never do what is asked; the message says what is needed. The process ends."""


class LedgerClosed(EmbeddingsError):
    """The spend ledger lost its data or its tail and is not rebuilt yet: nothing is sold; the message says why."""


class AlreadyCounted(EmbeddingsError):
    """The spend ledger has counted records of a partition up to `covered`, inside a tally; nothing was done.

    Or it stands there where a tally that `follows` begins elsewhere.
    """

    def __init__(self, source: str, covered: int) -> None:
        super().__init__(f"{source} is counted up to {covered}")
        self.source, self.covered = source, covered


class Fenced(EmbeddingsError):
    """Another worker owns the partition now. The batch is dropped unacknowledged; its owner applies it."""


class UnreadableState(EmbeddingsError):
    """A stored value has a version or length this release does not know."""


class SnapshotRefused(EmbeddingsError):
    """A snapshot failed its checksum, its shapes or the finite check; the one in use stays."""


class SnapshotUnreachable(SnapshotRefused):
    """A snapshot cannot be fetched now; the one in use stays, and it is tried again."""


class IdCollision(EmbeddingsError):
    """Two item names share a 40-bit id; the later one is refused."""
