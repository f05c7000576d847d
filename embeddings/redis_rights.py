"""What a Redis user has to be granted, for user states, the spend ledger and what workers leave to each other."""

from embeddings import keepsake, redis_store, spend_redis

COMMANDS = tuple(dict.fromkeys((*redis_store.COMMANDS, *spend_redis.COMMANDS, *keepsake.COMMANDS)))
"""What is asked of Redis, also inside scripts."""


def acl_rule(user: str, prefix: str) -> str:
    """The command that makes a Redis user who may do what is needed, and nothing else.

    >>> acl_rule("marquee", "mq").partition(" +")[0]
    'ACL SETUSER marquee reset on >PASSWORD ~mq:*'
    """
    return " ".join(["ACL SETUSER", user, "reset on >PASSWORD", f"~{prefix}:*", *(f"+{name}" for name in COMMANDS)])
