"""`fasthg env`: options of the command; `fasthg.cli.machine` looks at the machine."""

from __future__ import annotations

from fasthg.cli.options import AsJson, print_result


def env(as_json: AsJson = False) -> None:
    """Say what this machine is, which execution paths it can run, and why not the rest."""
    from fasthg.cli.machine import describe, machine_tables

    print_result(describe(), as_json, machine_tables)
