"""Who the user is and where the items are: numpy, redis, faiss.

Reading order: `ids` and `events` (the words), `state_columns` and `fold` (a user's state and how behaviour folds into
it), `seen`, `codec` (state as bytes), `store` (the promise) and `redis_store`, `write_behind` (what is kept until it is
stored), `idtable` and `items` (the catalogue as arrays), `cooccurrence` and `svd` (counts to factors), `content`
(vectors until there are counts), `snapshots`, `index`, `candidates`. Apart from these: `spend`, what
the ledger of money promises, with `spend_memory` and `spend_redis`, whose script is `spend.lua`.
"""
