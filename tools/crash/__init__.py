"""Fault injectors: they break stores on purpose and count what was lost. Run from tools/.

::

    python -m crash.kill      kill writers at random moments
    python -m crash.share     kill processes that share a store with others
    python -m crash.company   remove and replace files of a store that is open
    python -m crash.power     lose power: some writes have not arrived
    python -m crash.disk      fill the disk under a writer
    python -m crash.flip      damage the data file of a closed store
"""
