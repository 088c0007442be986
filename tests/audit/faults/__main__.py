"""`python -m tests.audit.faults`: the tables of docs/audit_cases.md."""

import tempfile
from pathlib import Path

from tests.audit.faults import accounts, functions, honest, models, scorers
from tests.audit.faults.case import find
from tests.support.streams import phrases

FAULTS = [*functions.FAULTS, *scorers.FAULTS, *models.FAULTS, *accounts.FAULTS]
FOUND = [fault for fault in FAULTS if fault.found_by]
UNSEEN = [fault for fault in FAULTS if not fault.found_by]
HONEST = honest.HONEST


def main() -> None:
    """Print the rows, each with its cost."""
    tokens, _ = phrases()
    for kind in ("function", "scorer", "model", "claim", "data"):
        print(f"\n{kind}\n\n| fault | what it does | found by | passes |\n|---|---|---|---|")
        for fault in (one for one in FOUND if one.kind == kind):
            asked = [0]
            with tempfile.TemporaryDirectory() as folder:
                case = fault.case(tokens, Path(folder), asked)
                find(case, fault.found_by[0])
            print(fault.row(asked[0] / (len(case.tokens) - 1)))
    print("\n| fault | what it does | why |\n|---|---|---|")
    for fault in UNSEEN:
        print(f"{fault.row(0)} {fault.unseen} |")
    print("\n| scorer | what it does |\n|---|---|")
    for one in HONEST:
        print(one.row(0))


if __name__ == "__main__":
    main()
