"""Faust's recovery of tables, of which there are none; but it resumes the flow after an assignment."""

from typing import Any

from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery


class PatientRecovery(Recovery):
    """Faust gives a change of positions as long as a request may take; after that it would never resume the flow."""

    async def _wait(self, coro: Any, timeout: Any = None) -> None:
        await super()._wait(coro)


class PatientTables(TableManager):
    """There are no tables; but their recovery resumes the flow after an assignment."""

    @property
    def recovery(self) -> Recovery:
        """The one service, made when it is asked for."""
        if self._recovery is None:
            self._recovery = PatientRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
