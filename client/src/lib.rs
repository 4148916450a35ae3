//! A multiprocessing pool for a whole fleet.
