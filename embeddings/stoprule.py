"""A bad deploy is not a bad record: when most of what a partition brings cannot be used, the partition pauses.

Judged per partition by share and run length: a run is the records since the share of dead letters last was what is
allowed, and it pauses its partition once it holds 50 dead letters too many. Chance must not pause anything, so that a
share up to a tenth above the limit counts as allowed (0.55 for a limit of 0.5). What is known is three numbers, which
live in the partition's mark: they survive every restart and go with the partition to its next owner.

>>> rule, run = StopRule(0.5), WELL
>>> run = rule.after(run, records=400, dead=200, code="malformed")
>>> run.records, rule.after(run, records=112, dead=112, code="malformed").paused
(0, True)
"""

from dataclasses import dataclass, replace

#: So many dead letters more than the share allows make a run that pauses its partition.
TOO_MANY = 50
#: So many records with no more dead letters than allowed end what an operator released.
WELL_AGAIN = 100
_SLACK = 0.2


@dataclass(frozen=True, slots=True)
class BadRun:
    """The current run of a partition.

    Attributes:
        records: records in it. After a release, those since the last that was one dead letter too many.
        dead: dead letters among them.
        code: why most of the last ones were dead-lettered.
        paused: nothing more of the partition is processed until an operator releases it.
        released: an operator said to go on; judged again when the records are well again.
    """

    records: int = 0
    dead: int = 0
    code: str = ""
    paused: bool = False
    released: bool = False

    @property
    def share(self) -> float:
        """Dead letters by records."""
        return self.dead / self.records if self.records else 0.0

    def release(self) -> "BadRun":
        """What follows when an operator says to go on."""
        return BadRun(released=True)


#: Nothing is wrong with a partition.
WELL = BadRun()


@dataclass(frozen=True, slots=True)
class StopRule:
    """`limit` is the share of dead letters that is allowed; 1 allows everything."""

    limit: float

    def after(self, run: BadRun, *, records: int, dead: int, code: str) -> BadRun:
        """The run after more records, of which some became dead letters, most of them with this code."""
        if run.paused or not records:
            return run
        run = replace(run, records=run.records + records, dead=run.dead + dead, code=code or run.code)
        too_many = run.dead - (self.limit + _SLACK * self.limit * (1 - self.limit)) * run.records
        if run.released:
            again = WELL if run.records >= WELL_AGAIN else run
            return again if too_many <= 0 else run.release()
        return replace(run, paused=too_many >= TOO_MANY) if too_many > 0 else WELL
