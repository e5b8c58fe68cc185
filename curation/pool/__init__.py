"""The generated image-text pool: Zipf concepts, many languages, web-like noise; images on demand.

`generate` makes records (URLs and texts, no bytes) and `render` draws the picture of a URL; both
are pure functions, so no stage has to store pictures of pairs that curation drops.
"""
