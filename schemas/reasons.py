"""Registry of the reasons a row can be counted under. A reason not listed here is refused."""

REASONS: dict[str, str] = {
    # rejected: bad bytes and bad rows
    "bad_utf8": "the text is not valid UTF-8",
    "nul_in_text": "the text contains a NUL character",
    "text_too_long": "the text is longer than max_text_bytes",
    "empty_text": "the text is empty or only white space",
    "no_url_no_image": "the record has neither a URL nor an image, so it has no identity",
    "no_url": "the row has no URL, so there is nothing to fetch",
    "bad_record": "the record cannot be parsed in the format of its file",
    "bad_parquet_row": "the row of a Parquet input cannot be read or has the wrong type",
    "not_an_image": "the bytes are not an image that the decoder knows",
    "image_too_large": "the image has more pixels or bytes than the limit",
    "image_crashed_decoder": "decoding the image killed the decoder's process",
    # what fetching refuses
    "fetch_bad_url": "the URL is malformed, carries a password, or is not http(s)",
    "fetch_private_address": "the host has a private, local, reserved or metadata address",
    "fetch_dns": "the host's name has no address",
    "fetch_connect": "no connection, or closed without an answer",
    "fetch_tls": "the host's certificate or TLS is not accepted",
    "fetch_protocol": "the answer is not HTTP",
    "fetch_timeout": "no answer in time, or the whole took longer than the deadline",
    "fetch_truncated": "the connection ended before the body did",
    "fetch_too_large": "the body has more bytes than max_bytes",
    "fetch_encoded": "the body came compressed although none was asked for",
    "fetch_redirects": "redirects in a loop, too many of them, or without a target",
    "fetch_robots": "robots.txt disallows the URL, or could not be read",
    "fetch_opt_out": "the answer's headers opt out (X-Robots-Tag, tdm-reservation)",
    "fetch_wrong_type": "the answer's content type is not an image",
    "fetch_http_4xx": "the host answered with a status of 400 to 499",
    "fetch_http_5xx": "the host answered with a status of 500 to 599",
    "fetch_http_status": "the host answered with another status than 200",
    "fetch_rate_limited": "the host asks to come back later than we wait",
    # rejected: by the user's choice or by the recipe
    "evaluation_set_url": "the URL belongs to an evaluation set",
    "evaluation_set_hash": "the image equals one of an evaluation set (exact or perceptual hash)",
    "below_score": "the user's score column is below min_score",
    "not_in_valid_list": "the image id is not in the list of valid ids",
    "language_without_metadata": "no metadata exists for the language identified",
    "no_entry_matched": "no entry of the metadata occurs in the text",
    "step_failed": "the step raised an error on this row; see the dead letters",
    # merged
    "duplicate_pair": "the same pair exists already; the smallest (source, shard, row) stays",
    "duplicate_image": "the image id occurs more than once; it is listed once",
    # sampled out
    "not_drawn": "the draw did not keep the pair",
    "image_has_another_text": "another text of the same image was picked",
    # created
    "generated": "made by a generator stage",
    "aggregated": "one row of an aggregate over the inputs",
    "derived": "computed from the rows of the inputs (counts, lists, automata)",
    "exploded": "one record became one row for each of its texts",
}
