"""What pods and operators' resources have in common: an attempt becomes an object, is followed, ended, let go of.

Kubernetes forgets, repeats and answers late. So nothing here follows an order of events: each attempt is looked at as it is
(what was asked of us, what the informer knows), and the one next step is taken, as often as it takes. What must survive this
process stands on the object: whose attempt it is, and a finalizer until its end is known.
"""
