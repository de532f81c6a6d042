"""Exit codes of `plimsoll run`, for scripts and CI."""

from __future__ import annotations

from plimsoll_api.report import EXIT_DONE, EXIT_INTERNAL_ERROR, EXIT_REQUEST_WRONG, EXIT_TRY_AGAIN, Outcome
from plimsoll_api.verdict import Verdict

# 2 is left to usage errors, as argparse has it.
BY_VERDICT = {Verdict.PASS: EXIT_DONE, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 3}
BY_OUTCOME = {
    Outcome.REQUEST_WRONG: EXIT_REQUEST_WRONG,
    Outcome.INTERNAL_ERROR: EXIT_INTERNAL_ERROR,
    Outcome.TRY_AGAIN: EXIT_TRY_AGAIN,
}

EXIT_CODES_HELP = f"""exit codes:
  {BY_VERDICT[Verdict.PASS]:<3} the candidate passed its gates
  {BY_VERDICT[Verdict.FAIL]:<3} a gate failed
  2   the command line is wrong
  {BY_VERDICT[Verdict.INCONCLUSIVE]:<3} a gate could not be decided; the table says how many samples would
  {EXIT_REQUEST_WRONG:<3} the job is wrong; the message names the field
  {EXIT_INTERNAL_ERROR:<3} a fault of Plimsoll, which trying again does not mend; please report it
  {EXIT_TRY_AGAIN:<3} something failed that may work when tried again
"""
