"""`apply` waits for each call: the same four messages, one after another, whatever the number of processes.

$ python 2_apply.py                                  # this machine
$ FLEETPOOL_CLUSTER=head:7700 python 2_apply.py      # a fleet
"""

import time

import fleetpool as multiprocessing


def func(msg):
    print("msg:", msg)
    time.sleep(0.1)
    print("end")


if __name__ == "__main__":
    pool = multiprocessing.Pool(processes=3)
    for i in range(4):
        msg = "hello %d" % i
        pool.apply(func, (msg,))
    print("Mark~ Mark~ Mark~~~~~~~~~~~~~~~~~~~~~~")
    pool.close()
    pool.join()
    print("Sub-process(es) done.")
