"""What a request says of where an ad would stand, as targeting asks for it: words, numbers, sizes, seconds.

What nobody says is not there, so that it is unknown and not empty. Lists are cut, not refused: a line item names few
words, and so many are enough to be found.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from embeddings.eligibility import Viewer, age_of, language_of
from ranking.ads.gates import UNREADABLE_AGE
from ranking.ads.inventory import FORMATS
from ranking.ads.predicates import KEY_VALUE, Opportunity, fold
from streams.contract.imp_records import Channel, Content, Imp
from streams.contract.records import Request, encode

DEVICE_TYPES = ("", "mobile", "pc", "ctv", "phone", "tablet", "connected_device", "set_top_box", "ooh")
"""Words for the numbers of OpenRTB's `devicetype`; line items may ask for either."""
_MOST_WORDS, _MOST_LETTERS, _REMEMBERED, _LONGEST = 256, 128, 4_096, 8_192
K = TypeVar("K")
V = TypeVar("V")


def opportunity_of(request: Request, imp: Imp, shared: Mapping[str, Sequence[str]], now_ms: int) -> Opportunity:
    """What targeting is asked about one slot; `shared` are the `Contexts.words` of its request."""
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


def content_of(request: Request) -> Content | None:
    """What is played or read around the slots, None where nobody says."""
    for channel in (request.site, request.app):
        if channel and channel.content:
            return channel.content
    return None


@dataclass(frozen=True, slots=True)
class Contexts:
    """Reads what all slots of a request share. What sites, apps and key-values say comes again and is remembered."""

    _known: dict[bytes, dict[str, Sequence[str]]] = field(default_factory=dict, compare=False, repr=False)

    def words(self, request: Request, viewer: Viewer) -> dict[str, Sequence[str]]:
        """Words by attribute; what nobody says is not there."""
        key = encode((request.site, request.app, request.keyvalues))
        found = self._known.get(key)
        if found is None:
            found = _of_publisher(request)
            remember(self._known, key, found, len(key))
        return found | _there(_of_viewer(request, viewer))


def remember(known: dict[K, V], key: K, value: V, size: int) -> None:
    """Keep a value under a key of so many bytes, where it is short: some thousands are, then all are forgotten."""
    if size <= _LONGEST:
        if len(known) >= _REMEMBERED:
            known.clear()
        known[key] = value


def _of_publisher(request: Request) -> dict[str, Sequence[str]]:
    channels, content = [channel for channel in (request.site, request.app) if channel], content_of(request)
    said: dict[str, Iterable[str | None]] = {
        "domain": [channel.domain for channel in channels],
        "bundle": [channel.bundle for channel in channels],
        "cat": _categories([content, *channels]),
    }
    if content:
        said["genre"] = (*_listed(content.genre), *map(str, content.genres or ()))
        said["series"], said["content_language"] = (content.series,), _languages(content.language)
    words = _there(said)
    _add_key_values(words, request.keyvalues)
    _add_key_values(words, {"keywords": _keywords([content, *channels])})
    return words


def _of_viewer(request: Request, viewer: Viewer) -> dict[str, Iterable[str | None]]:
    context, device = request.context, request.device
    said: dict[str, Iterable[str | None]] = {"country": (viewer.country,), "surface": (viewer.surface,)}
    if context:
        said["devicetype"], said["language"] = (context.device,), _languages(context.language)
    if device:
        said["os"] = (device.os,)
        said["devicetype"] = (*said.get("devicetype", ()), *_device_type(device.devicetype))
        said["language"] = (*said.get("language", ()), *_languages(device.language))
    if geo := device.geo if device else None:
        said |= {"country": (viewer.country, geo.country), "region": (geo.region,), "city": (geo.city,)}
    if request.user and request.user.data:
        segments = [segment for each in request.user.data for segment in each.segment or ()]
        said["segment"] = [name for segment in segments for name in (segment.id, segment.name)]
    return said


def _there(said: Mapping[str, Iterable[str | None]]) -> dict[str, Sequence[str]]:
    """Words that line items can ask for, each once, of attributes that have any."""
    words: dict[str, Sequence[str]] = {}
    for attribute, some in said.items():
        if found := distinct([word for word in some if word and len(word) <= _MOST_LETTERS]):
            words[attribute] = found[:_MOST_WORDS]
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
