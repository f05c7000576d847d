"""Who the user is and where the items are: numpy, redis, faiss.

Reading order: `ids` and `events` (the words), `states` and `users` (a user's state and how behaviour folds into it),
`seen`, `codec` (state as bytes), `store` (the promise) and `redis_store`, `idtable` and `items` (the catalogue as
arrays), `cooccurrence` and `svd` (counts to factors), `snapshots`, `index`, `candidates`.
"""
