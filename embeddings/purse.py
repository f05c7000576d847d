"""What a worker may spend without asking: its leases of the spend ledger, as long as they last."""

from collections.abc import Sequence

from embeddings.spend import Lease


class Purse:
    """What a worker holds in leases, kept beside the ledger so that deciding needs no round trip.

    >>> purse = Purse()
    >>> purse.put([Lease("c/l", 25, until_ms=1_000)])
    >>> [purse.take("c/l", 10, now_ms=0) for _ in range(3)], purse.left("c/l", now_ms=0)
    ([True, True, False], 5)
    >>> purse.left("c/l", now_ms=1_000)
    0
    """

    def __init__(self) -> None:
        self._held: dict[str, Lease] = {}

    def put(self, leases: Sequence[Lease]) -> None:
        """Take over leases, once the ledger was told of everything taken before."""
        self._held.update((lease.key, lease) for lease in leases)

    def left(self, key: str, *, now_ms: int) -> int:
        """What may still be spent for a line item; 0 once the lease has ended."""
        lease = self._held.get(key)
        return lease.micros if lease is not None and now_ms < lease.until_ms else 0

    def take(self, key: str, micros: int, *, now_ms: int) -> bool:
        """Spend some of a lease, if there is enough."""
        if key not in self._held or micros > self.left(key, now_ms=now_ms):
            return False
        self._held[key] = self._held[key]._replace(micros=self._held[key].micros - micros)
        return True

    def drop(self) -> None:
        """The ledger is closed: nothing of it may be spent."""
        self._held.clear()
