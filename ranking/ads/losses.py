"""Why a candidate did not get a slot: OpenRTB's loss reason codes, and ours from 1000."""

from enum import IntEnum


class Loss(IntEnum):
    """OpenRTB 3.10's words for each fate of a bid; what it has no word for begins at 1000."""

    won = 0
    internal = 1
    expired = 2
    invalid = 3
    below_floor = 100
    below_deal_floor = 101
    outbid = 102
    lost_to_deal = 103
    seat_blocked = 104
    creative_filtered = 200
    creative_pending = 201
    creative_disapproved = 202
    size_not_allowed = 203
    wrong_format = 204
    advertiser_excluded = 205
    app_excluded = 206
    not_secure = 207
    language_excluded = 208
    category_excluded = 209
    capped = 1000
    paced = 1001
    budget_exhausted = 1002
    no_consent = 1003
    rating_block = 1004
    adjacency_block = 1005
    separation_block = 1006
    not_near = 1007
    cap_unknown = 1008
