"""emcee, whose sampler takes a pool: any object that has `map`.

$ pip install emcee
$ python 7_emcee.py                                  # this machine
$ FLEETPOOL_CLUSTER=head:7700 python 7_emcee.py      # a fleet, whose hosts have numpy
"""

import emcee
import numpy
from fleetpool import Pool

DIMENSIONS, WALKERS, STEPS = 3, 16, 50


def log_prob(theta):
    return -0.5 * numpy.sum(theta**2)


if __name__ == "__main__":
    numpy.random.seed(42)
    initial = numpy.random.randn(WALKERS, DIMENSIONS)
    with Pool(2) as pool:
        sampler = emcee.EnsembleSampler(WALKERS, DIMENSIONS, log_prob, pool=pool)
        sampler.run_mcmc(initial, STEPS, progress=False)
    chain = sampler.get_chain(flat=True)
    print("%d samples of %d dimensions" % chain.shape)
    print("every mean is within 1 of 0:", bool(numpy.all(numpy.abs(chain.mean(axis=0)) < 1)))
