"""The command line `fasthg`: `app.py` puts the commands together, each of which has a file by its name."""
