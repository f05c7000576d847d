"""What a spend ledger is not asked: whatever keeps it, these are refused before a call."""

from collections.abc import Sequence

from embeddings.spend import KINDS, LOST_TO, MOST_AMOUNT, MOST_ROWS, ONE, TOLD, UNLIMITED, Budget, Reservation, Tally


def check(rows: Sequence[object], amounts: Sequence[int] = (), tallies: Sequence[Tally] = ()) -> None:
    """Can a call be made so?

    Raises:
        ValueError: no; the message says what and what is allowed.
    """
    if len(rows) > MOST_ROWS:
        raise ValueError(f"{len(rows)} rows in one call of the ledger, allowed are {MOST_ROWS}")
    if amounts and not 0 <= min(amounts) <= max(amounts) <= MOST_AMOUNT:
        raise ValueError(f"amounts from {min(amounts)} to {max(amounts)}, allowed are 0 to {MOST_AMOUNT}")
    for tally in tallies:
        if not tally.above <= tally.upto or any(
            not (name in TOLD or name.startswith(LOST_TO)) or count < 0 for (_, name), count in tally.counts.items()
        ):
            raise ValueError(f"a tally of {tally.source} that runs backwards, or counts what is not in TOLD")


def check_reservations(reservations: Sequence[Reservation], tallies: Sequence[Tally]) -> None:
    """Can these be reserved?

    Raises:
        ValueError: no; the message says what and what is allowed.
    """
    check(reservations, [amount for one in reservations for amount in (one.micros, one.price)], tallies)
    check_kinds([kind for one in reservations for kind in (one.billed_by, one.booked_by)])
    if wrong := [one.holds for one in reservations if not 0 <= one.holds <= ONE]:
        raise ValueError(f"{wrong[0]} held of a booked number, allowed are 0 to {ONE}")


def check_kinds(kinds: Sequence[str]) -> None:
    """Can these happen to an ad?

    Raises:
        ValueError: no; the message says which and what is allowed.
    """
    if unknown := set(kinds) - KINDS.keys():
        raise ValueError(f"events of kinds {sorted(unknown)}, allowed are {sorted(KINDS)}")


def check_budgets(budgets: Sequence[Budget]) -> None:
    """Can these be budgets?

    Raises:
        ValueError: no; the message says which.
    """
    check(budgets)
    for budget in budgets:
        if not 0 <= budget.micros <= UNLIMITED:
            raise ValueError(f"a budget of {budget.micros} for {budget.window}, allowed are 0 to {UNLIMITED}")
