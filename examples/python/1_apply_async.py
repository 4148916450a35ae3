"""Four messages, three processes: `apply_async` does not wait. The fourth begins when one of the first three has ended.

$ python 1_apply_async.py                                  # this machine
$ FLEETPOOL_CLUSTER=head:7700 python 1_apply_async.py      # a fleet
"""

import time

import fleetpool as multiprocessing


def func(msg):
    print("msg:", msg)
    time.sleep(0.3)
    print("end")


if __name__ == "__main__":
    pool = multiprocessing.Pool(processes=3)
    for i in range(4):
        msg = "hello %d" % i
        pool.apply_async(func, (msg,))
    print("Mark~ Mark~ Mark~~~~~~~~~~~~~~~~~~~~~~")
    pool.close()
    pool.join()  # after close() or terminate(), which it needs
    print("Sub-process(es) done.")
