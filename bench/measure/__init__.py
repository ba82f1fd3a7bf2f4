"""Measuring one thing: time, memory, limits of the machine, agreement with the reference."""
