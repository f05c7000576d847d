"""Who the user is and where the items are: numpy, redis, faiss.

Reading order: `ids` and `events` (the words), `users` (state and fold), `seen`, `codec` (state as bytes), `store`
(Redis), `items` (the catalogue as arrays), `cooccurrence` (counts to factors), `snapshots`, `index`.
"""
