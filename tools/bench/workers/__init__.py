"""One module a system: a process of its own, run by the python of its virtual environment."""
