"""One leader, the others wait: an assignor that gives every partition to one member of the group.

The learner's counts are one whole; two of them would each learn half. Started twice, the second waits with nothing
assigned, and when the first is gone it goes on from the last checkpoint.
"""

from collections.abc import Iterable, Mapping

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

_LEADING = b"leading"


class LeaderAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
    """Everything to the member that leads already, else to the first by name.

    aiokafka calls class methods, so what this process was assigned last is kept on the class: one group a process.
    """

    name = "marquee-leader"
    version = 0
    _leads = False

    @classmethod
    def assign(
        cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """All partitions of all subscribed topics to one member."""
        leader = min(members, key=lambda member: (members[member].user_data != _LEADING, member))
        topics = {topic for metadata in members.values() for topic in metadata.subscription}
        everything = [(topic, sorted(cluster.partitions_for_topic(topic) or ())) for topic in sorted(topics)]
        return {
            member: ConsumerProtocolMemberAssignment(cls.version, everything if member == leader else [], b"")
            for member in members
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this member says when it joins: whether it leads."""
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), _LEADING if cls._leads else b"")

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember whether this member leads now."""
        cls._leads = any(partitions for _, partitions in assignment.assignment)
