"""A progress bar of tqdm over `imap_unordered`: it moves as results come.

$ pip install tqdm
$ python 9_tqdm.py                                  # this machine
$ FLEETPOOL_CLUSTER=head:7700 python 9_tqdm.py      # a fleet
"""

import time

from fleetpool import Pool
from tqdm import tqdm


def work(number):
    time.sleep(0.01)
    return number * number


if __name__ == "__main__":
    inputs = range(50)
    with Pool(4) as pool:
        results = list(tqdm(pool.imap_unordered(work, inputs), total=len(inputs)))
    print("sum of %d squares: %d" % (len(results), sum(results)))
