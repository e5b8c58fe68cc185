"""A teacher's answers, kept: `caching` writes them (`trainer logits`), `cached` reads them in training,
`layout` says which rows there are."""
