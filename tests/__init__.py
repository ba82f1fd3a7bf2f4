"""The tests; a package of the name, since sleap-io installs another `tests` that fresh processes would find instead."""
