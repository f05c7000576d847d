"""What the spend ledger answers: what became of a reservation, and of an event."""

from enum import IntEnum

CONVERSIONS_MS = 92 * 86_400_000
"""So long an id of a conversion is known: the longest attribution window, and two days for clocks that differ."""


class Verdict(IntEnum):
    """What became of a reservation."""

    reserved = 0
    again = 1  # its key was there: the stored decision stands
    budget_exhausted = 2
    no_lease = 3  # none, it has ended, or it is of other windows
    lease_spent = 4  # the lease has too little, the budgets have more
    capped = 5
    closed = 6  # not stored: the same key may be reserved later


class Billing(IntEnum):
    """What became of an event."""

    billed = 0
    again = 1  # one of this kind was confirmed before
    late = 2  # billed after its reservation had expired
    too_late = 3  # after `billed_until_ms`: counted, not spent
    unknown = 4  # no such decision, or it was refused
    known = 5  # spent already in the totals that the ledger was rebuilt from
    other = 6  # counted; something else is paid for
    elsewhere = 7  # a conversion that was confirmed for another decision: it changes nothing
