"""scikit-learn, by the joblib backend "fleetpool".

$ pip install scikit-learn
$ python 8_scikit_learn.py                                  # this machine
$ FLEETPOOL_CLUSTER=head:7700 python 8_scikit_learn.py      # a fleet, whose hosts have scikit-learn
"""

import fleetpool.joblib  # noqa: F401, registers the backend
import joblib
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

if __name__ == "__main__":
    x, y = load_iris(return_X_y=True)
    search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}, cv=3, n_jobs=-1)
    with joblib.parallel_backend("fleetpool"):
        search.fit(x, y)
    print("best of %d:" % len(search.cv_results_["params"]), sorted(search.best_params_))
    print("better than 0.9:", bool(search.best_score_ > 0.9))
