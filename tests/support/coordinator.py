"""`python coordinator.py SPACE.yaml SLOTS [PATIENCE]`: a sweep in a process of its own, for tests that kill it.

PATIENCE is the watchdog's, as JSON.
"""

import json
import sys
from pathlib import Path

from sweeper.engine import loop
from sweeper.executors.local import Local
from sweeper.executors.watchdog import HangLimits
from sweeper.system.devices import Slot
from sweeper.system.signals import Stop, listening
from tests.support.studies import Seen, opened

if __name__ == "__main__":
    stop = Stop()
    with listening(stop):
        study = opened(Path(sys.argv[1]))
        seen = Seen(loud=True)
        patience = HangLimits(**json.loads(sys.argv[3])) if len(sys.argv) > 3 else None
        executor = Local([Slot(f"cpu:{index}") for index in range(int(sys.argv[2]))], patience=patience)
        outcome = loop.run(study, executor, seen, stop=stop)
        study.close()
    print(outcome.reason, file=sys.stderr)
    sys.exit(outcome.exit_code)
