"""`apply_async` gives a result object at once; `get()` waits for its value.

$ python 3_results.py                                  # this machine
$ FLEETPOOL_CLUSTER=head:7700 python 3_results.py      # a fleet
"""

import time

import fleetpool as multiprocessing


def func(msg):
    print("msg:", msg)
    time.sleep(0.1)
    print("end")
    return "done " + msg


if __name__ == "__main__":
    pool = multiprocessing.Pool(processes=4)
    result = []
    for i in range(10):
        msg = "hello %d" % i
        result.append(pool.apply_async(func, (msg,)))
    pool.close()
    pool.join()
    for res in result:
        print(":::", res.get())
    print("Sub-process(es) done.")
