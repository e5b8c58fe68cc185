"""Registry of the reasons a row can be counted under. A reason not listed here is refused."""

REASONS: dict[str, str] = {
    # rejected: bad bytes and bad rows
    "bad_utf8": "the text is not valid UTF-8",
    "nul_in_text": "the text contains a NUL character",
    "text_too_long": "the text is longer than max_text_bytes",
    "empty_text": "the text is empty or only white space",
    "no_url_no_image": "the record has neither a URL nor an image, so it has no identity",
    "bad_record": "the record cannot be parsed in the format of its file",
    "bad_parquet_row": "the row of a Parquet input cannot be read or has the wrong type",
    "not_an_image": "the bytes are not an image that the decoder knows",
    "image_too_large": "the image has more pixels or bytes than the limit",
    "image_crashed_decoder": "decoding the image killed the decoder's process",
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
