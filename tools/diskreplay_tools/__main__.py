"""`python -m diskreplay_tools` is the same as `diskreplay`."""

from diskreplay_tools.cli import main

if __name__ == "__main__":
    main(prog_name="diskreplay")
