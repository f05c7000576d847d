import subprocess
import sys

# A service that fails, beside another that does not end.
PROGRAM = """
import asyncio
from mode import Service
from streams.process.host import _Host

class Endless(Service):
    async def on_stop(self):
        await asyncio.Event().wait()

class Failing(Service):
    async def on_started(self):
        self.add_future(self.fail())

    async def fail(self):
        raise RuntimeError("this is why")

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
_Host(Failing(), [Endless()], 0.5, loop).execute_from_commandline()
"""


def test_a_process_that_does_not_end_after_a_crash_is_ended_and_says_why() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 77, done.stderr
    assert "not stopped 0.5 s after RuntimeError('this is why')" in done.stderr
