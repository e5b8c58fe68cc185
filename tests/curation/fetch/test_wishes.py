"""What hosts wish: robots.txt, opt-outs in headers; and what users must say."""

from __future__ import annotations

import time

import pytest

from curation.fetch import FetchOptions, fetch, robots
from curation.fetch.opt_out import opted_out
from curation.fetch.options import DIRECTIVES
from curation.fetch.verdict import Refusal
from schemas.errors import UsageError
from tests.curation.fetch.asking import options, table

URL = "https://example.org/private/x.jpg"


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", True),
        ("User-agent: *\nDisallow: /", False),
        ("user-agent:*\ndisallow:/private", False),
        ("User-agent: *\nDisallow:", True),
        ("User-agent: *\nDisallow: /private\nAllow: /private/x", True),
        ("User-agent: *\nDisallow: /*.jpg$", False),
        ("User-agent: *\nDisallow: /*.png$", True),
        ("User-agent: headrace\nAllow: /\n\nUser-agent: *\nDisallow: /", True),
        ("User-agent: HEADRACE/2.0\nDisallow: /", False),
        ("User-agent: a\nUser-agent: headrace\nUser-agent: b\nDisallow: /", False),
        ("User-agent: headracer\nDisallow: /", True),
        ("User-agent: headrace 2.0 (images)\nDisallow: /", False),
        ("User-agent: * # everybody\nDisallow: /", False),
        ("User-agent: *bot\nDisallow: /", True),
        ("User-agent: head\nDisallow: /", True),
        ("User-agent: *\nAllow: /\n\nUser-agent: headrace\nDisallow: /", False),
        ("User-agent: headrace\nDisallow: /a\n\nUser-agent: headrace\nDisallow: /private", False),
        ("\ufeffUser-agent: *\r\nDisallow: /\r\n", False),
        ("User-agent: *\nDisallow: /%70rivate/", False),
        ("Disallow: /", True),
        ("<html><body>not found</body></html>", True),
        ("User-agent: *\n" + "#" * robots.MAX_BYTES + "\nDisallow: /", True),
    ],
)
def test_robots_by_rfc_9309(text: str, allowed: bool) -> None:
    assert robots.parse(text.encode()).allows(URL) is allowed


def test_robots_that_are_no_text() -> None:
    assert robots.parse(bytes(range(256)) * 100).allows(URL)


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"User-agent: a{i}\n" for i in range(14_000))
        + "".join(f"Allow:/{i}\n" for i in range(20_000)),
        "User-agent: *\n" + "Disallow: /" + "*a" * 200_000,
        "User-agent: *\n" + "".join(f"Disallow: /*{i}*b*c*d$\n" for i in range(20_000)),
    ],
    ids=["agents times rules", "stars", "patterns"],
)
def test_hostile_robots_take_no_time(text: str) -> None:
    start = time.process_time()
    robots.parse(text.encode()).allows("https://example.org/" + "ab" * 2000)
    assert time.process_time() - start < 3.0


def test_what_a_robots_txt_that_was_not_got_means() -> None:
    for reason, expected in (
        ("fetch_http_4xx", None),
        ("fetch_redirects", None),
        ("fetch_http_5xx", "fetch_robots"),
        ("fetch_timeout", "fetch_robots"),
        ("fetch_truncated", "fetch_robots"),
        ("fetch_dns", "fetch_dns"),
        ("fetch_private_address", "fetch_private_address"),
    ):
        found = robots.verdict_of(Refusal(reason, "why"))
        assert (found.reason if isinstance(found, Refusal) else None) == expected


@pytest.mark.parametrize(
    ("headers", "out"),
    [
        ([("X-Robots-Tag", "noai")], True),
        ([("x-robots-tag", "NOIMAGEAI")], True),
        ([("X-Robots-Tag", "noindex, nofollow")], True),
        ([("X-Robots-Tag", "nofollow, noimageindex")], True),
        ([("X-Robots-Tag", "none")], True),
        ([("X-Robots-Tag", "all")], False),
        ([("X-Robots-Tag", "nofollow")], False),
        ([("X-Robots-Tag", "headrace: noai")], True),
        ([("X-Robots-Tag", "Headrace: nofollow, noai")], True),
        ([("X-Robots-Tag", "otherbot: noai, noindex")], False),
        ([("X-Robots-Tag", "nofollow"), ("X-Robots-Tag", "noai")], True),
        ([("X-Robots-Tag", "noai, otherbot: nofollow")], True),
        ([("X-Robots-Tag", "otherbot: nofollow, headrace: noai")], True),
        ([("X-Robots-Tag", "unavailable_after: 25 Jun 2027 15:00:00 PST, noai")], True),
        ([("X-Robots-Tag", "max-image-preview: large")], False),
        ([("X-Robots-Tag", "")], False),
        ([("TDM-Reservation", "1")], True),
        ([("tdm-reservation", " 1 ")], True),
        ([("tdm-reservation", "0")], False),
        ([("Content-Type", "noai")], False),
    ],
)
def test_opt_outs(headers: list[tuple[str, str]], out: bool) -> None:
    assert (opted_out(headers, frozenset(DIRECTIVES), tdm=True) is not None) is out


def test_opt_outs_are_the_users_to_choose() -> None:
    tag = [("X-Robots-Tag", "noindex")]
    assert opted_out(tag, frozenset({"noai"}), tdm=True) is None
    assert opted_out(tag, frozenset(), tdm=True) is None
    assert opted_out([("tdm-reservation", "1")], frozenset(DIRECTIVES), tdm=False) is None


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"contact": ""}, "webmasters"),
        ({"contact": "nobody"}, "'nobody'"),
        ({"contact": "a@b.org\r\nX: y"}, "contact"),
        ({"contact": "https://me:pw@example.org/"}, "contact"),
        ({"contact": "grüße@example.org"}, "ASCII"),
        ({"timeout": 0}, "timeout=0"),
        ({"deadline": -1.0}, "deadline=-1.0"),
        ({"requests_per_second": 0.0}, "requests_per_second"),
        ({"retries": 50}, "retries=50"),
        ({"resize": "bigger"}, "keep_ratio"),
        ({"encode_format": "gif"}, "webp"),
        ({"encode_format": "png"}, "encode_quality=95"),
        ({"allow_private": ("localhost",)}, "host:port"),
        ({"timeout": "abc"}, "timeout=abc: must be a number"),
        ({"connections": 2.5}, "connections=2.5: must be a whole number"),
        ({"concurrency": True}, "concurrency=True"),
        ({"robots": "false"}, "robots=false: must be true or false"),
        ({"opt_out": (1,)}, "opt_out"),
        ({"contact": None}, "contact=None"),
    ],
)
def test_options_refused(values: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        options(**values)


def test_options_as_json() -> None:
    made = options(opt_out=("NoAI",), allow_private=("A.localhost:80",), resize="no")
    assert FetchOptions.from_json(made.to_json()) == made
    assert made.opt_out == ("noai",)
    with pytest.raises(UsageError, match="speed"):
        FetchOptions.from_json('{"contact": "a@example.org", "speed": 9}')
    with pytest.raises(UsageError, match="opt_out=5: must be a list of texts"):
        FetchOptions.from_json('{"contact": "a@example.org", "opt_out": 5}')


def test_tables_refused() -> None:
    with pytest.raises(UsageError, match="url"):
        fetch(table(["x"]).select(["image_id"]), options())
    with pytest.raises(UsageError, match="share=0"):
        fetch(table(["x"]), options(), 0)


def test_no_rows() -> None:
    assert list(fetch(table([]), options())) == []
