"""Four different functions in one pool of four: each slot runs whatever comes next.

$ python 4_four_functions.py                                  # this machine
$ FLEETPOOL_CLUSTER=head:7700 python 4_four_functions.py      # a fleet
"""

import os
import random
import time

import fleetpool as multiprocessing


def Lee():
    print("\nRun task Lee-%s" % os.getpid())
    start = time.time()
    time.sleep(random.random() * 0.4)
    end = time.time()
    print("Task Lee, runs %0.2f seconds." % (end - start))


def Marlon():
    print("\nRun task Marlon-%s" % os.getpid())
    start = time.time()
    time.sleep(random.random() * 0.3)
    end = time.time()
    print("Task Marlon runs %0.2f seconds." % (end - start))


def Allen():
    print("\nRun task Allen-%s" % os.getpid())
    start = time.time()
    time.sleep(random.random() * 0.2)
    end = time.time()
    print("Task Allen runs %0.2f seconds." % (end - start))


def Frank():
    print("\nRun task Frank-%s" % os.getpid())
    start = time.time()
    time.sleep(random.random() * 0.1)
    end = time.time()
    print("Task Frank runs %0.2f seconds." % (end - start))


if __name__ == "__main__":
    function_list = [Lee, Marlon, Allen, Frank]
    print("parent process %s" % os.getpid())

    pool = multiprocessing.Pool(4)
    for func in function_list:
        pool.apply_async(func)

    print("Waiting for all subprocesses done...")
    pool.close()
    pool.join()
    print("All subprocesses done.")
