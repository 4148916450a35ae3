"""`map` over a range: eight calls over two processes, results in the order of the inputs.

$ python 5_map.py                                  # this machine
$ FLEETPOOL_CLUSTER=head:7700 python 5_map.py      # a fleet
"""

import time

from fleetpool import Pool


def m1(x):
    time.sleep(0.02)
    return x * x


if __name__ == "__main__":
    pool = Pool(2)
    print(pool.map(m1, range(8)))
    pool.close()
    pool.join()
