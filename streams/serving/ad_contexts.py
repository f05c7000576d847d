"""What a request says of where an ad would stand, as targeting asks for it: words, numbers, sizes, seconds.

What nobody says is not there, so that it is unknown and not empty. Lists are cut, not refused: a line item names few
words, and so many are enough to be found.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from embeddings.eligibility import Viewer, age_of, language_of
from ranking.ads.gates import UNREADABLE_AGE
from ranking.ads.inventory import FORMATS
from ranking.ads.predicates import KEY_VALUE, Opportunity, fold
from streams.contract.imp_records import Channel, Content, Imp
from streams.contract.records import Request

DEVICE_TYPES = ("", "mobile", "pc", "ctv", "phone", "tablet", "connected_device", "set_top_box", "ooh")
"""Words for the numbers of OpenRTB's `devicetype`; line items may ask for either."""
_MOST_WORDS, _MOST_LETTERS = 256, 128


def opportunity_of(request: Request, imp: Imp, shared: Mapping[str, Sequence[str]], now_ms: int) -> Opportunity:
    """What targeting is asked about one slot; `shared` is `words_of` its request."""
    geo = request.device.geo if request.device else None
    words = dict(shared)
    if imp.tagid:
        words["tagid"] = (imp.tagid,)
    if formats := tuple(name for name in FORMATS if getattr(imp, name)):
        words["format"] = formats
    _add_key_values(words, imp.keyvalues)
    offset = request.context.utcoffset if request.context else None
    return Opportunity(
        now_ms=now_ms,
        words=words,
        numbers=_numbers(imp, content_of(request)),
        place=(geo.lat, geo.lon) if geo and geo.lat is not None and geo.lon is not None else None,
        utcoffset=offset if offset is not None else geo.utcoffset if geo else None,
    )


def _channels(request: Request) -> list[Channel]:
    return [channel for channel in (request.site, request.app) if channel]


def content_of(request: Request) -> Content | None:
    """What is played or read around the slots, None where nobody says."""
    return next((channel.content for channel in _channels(request) if channel.content), None)


def words_of(request: Request, viewer: Viewer) -> dict[str, Sequence[str]]:
    """Words that all slots of a request share, by attribute; what nobody says is not there."""
    context, device, content = request.context, request.device, content_of(request)
    geo, channels = device.geo if device else None, _channels(request)
    said: dict[str, Iterable[str | None]] = {
        "country": (viewer.country, geo.country if geo else None),
        "devicetype": (context.device if context else None, *_device_type(device.devicetype if device else None)),
        "os": (device.os if device else None,),
        "language": _languages(context.language if context else None, device.language if device else None),
        "surface": (viewer.surface,),
    }
    if geo:
        said |= {"region": (geo.region,), "city": (geo.city,)}
    if channels:
        said["domain"], said["bundle"] = zip(*((channel.domain, channel.bundle) for channel in channels), strict=True)
        said["cat"] = _categories([content, *channels])
    if content:
        said["genre"] = (*_listed(content.genre), *map(str, content.genres or ()))
        said["series"], said["content_language"] = (content.series,), _languages(content.language)
    if request.user and request.user.data:
        segments = (segment for each in request.user.data for segment in each.segment or ())
        said["segment"] = (name for segment in segments for name in (segment.id, segment.name))
    words: dict[str, Sequence[str]] = {}
    for attribute, some in said.items():
        if found := distinct(word for word in some if word and len(word) <= _MOST_LETTERS):
            words[attribute] = found[:_MOST_WORDS]
    _add_key_values(words, request.keyvalues)
    if keywords := _keywords([content, *channels]):
        _add_key_values(words, {"keywords": keywords})
    return words


def _device_type(number: int | None) -> Iterable[str]:
    if number is None:
        return ()
    return (str(number), DEVICE_TYPES[number]) if 0 < number < len(DEVICE_TYPES) else (str(number),)


def _languages(*tags: str | None) -> Iterable[str]:
    """Tags, and the languages that they are of."""
    return (word for tag in tags if tag for word in (tag, language_of(tag)))


def _categories(said: Iterable[Channel | Content | None]) -> Iterable[str]:
    """Categories of content and channels, and those they lie in: `IAB7` of `IAB7-39`."""
    for category in (category for each in said if each for category in each.cat or ()):
        yield category
        if category.startswith("IAB") and "-" in category:
            yield category.partition("-")[0]


def _keywords(said: Iterable[Channel | Content | None]) -> tuple[str, ...]:
    words = (word for each in said if each for word in (*_listed(each.keywords), *(each.kwarray or ())))
    return distinct(words)[:_MOST_WORDS]


def _listed(text: str | None) -> Iterable[str]:
    return [word for part in text.split(",", _MOST_WORDS)[:_MOST_WORDS] if (word := part.strip())] if text else ()


def _add_key_values(words: dict[str, Sequence[str]], said: Mapping[str, str | tuple[str, ...]] | None) -> None:
    """Add a publisher's key-values; those of a request and of its slot add up."""
    for key, values in (said or {}).items():
        found = (values,) if isinstance(values, str) else values
        if found:
            name = KEY_VALUE + fold(key)
            words[name] = distinct((*words.get(name, ()), *found))[:_MOST_WORDS]


def _numbers(imp: Imp, content: Content | None) -> dict[str, int]:
    """Numbers that are said, by the names of `predicates.NUMBERS`."""
    age = age_of(content.contentrating) if content and content.contentrating else UNREADABLE_AGE
    shown = imp.video or imp.audio
    size = next(iter(sizes(imp)), (None, None)) if imp.banner or not imp.video else (imp.video.w, imp.video.h)
    said = {
        "content_len": content.len if content else None,
        "content_rating": None if age == UNREADABLE_AGE else age,
        "minduration": shown.minduration if shown else None,
        "maxduration": shown.maxduration if shown else None,
        "w": size[0],
        "h": size[1],
    }
    return {name: number for name, number in said.items() if number is not None}


def sizes(imp: Imp) -> tuple[tuple[int, int], ...]:
    """Sizes that a creative may have, any where no banner says one. A player's counts only beside those of a banner."""
    if imp.banner is None:
        return ()
    said: list[Any] = [*(imp.banner.format or ()), imp.banner]
    if any(each.w and each.h for each in said) and imp.video:
        said.append(imp.video)
    return tuple(dict.fromkeys((each.w, each.h) for each in said if each.w and each.h))


def seconds(imp: Imp) -> tuple[int, int]:
    """How long a creative may run, of video and audio the stricter; (0, 0) where nobody says."""
    said = [each for each in (imp.video, imp.audio) if each]
    least = max((each.minduration or 0 for each in said), default=0)
    most = min((each.maxduration or math.inf for each in said), default=math.inf)
    return least, 0 if most == math.inf else int(most)


def distinct(words: Iterable[str]) -> tuple[str, ...]:
    """Words in their order, each once."""
    return tuple(dict.fromkeys(words))
