"""`python -m tests.audit.faults`: the tables of docs/audit_cases.md."""
