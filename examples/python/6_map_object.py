"""`map` of a method: the object goes along with it.

$ python 6_map_object.py                                  # this machine
$ FLEETPOOL_CLUSTER=head:7700 python 6_map_object.py      # a fleet
"""

import logging
import time

from fleetpool import Pool


class CreateLogger:
    """Makes log lines in one style."""

    def __init__(self, name, level=logging.INFO):
        self.name = name
        self.level = level
        self.log = logging.getLogger(name)

    def func(self, msg):
        time.sleep(0.02)
        return "%s %s: %s" % (logging.getLevelName(self.level), self.log.name, msg)


if __name__ == "__main__":
    cl = CreateLogger("fleet")
    pool = Pool(processes=2)
    for line in pool.map(cl.func, ["one", "two", "three"]):
        print(line)
    pool.close()
    pool.join()
