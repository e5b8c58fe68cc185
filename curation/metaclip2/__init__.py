"""MetaCLIP 2 (arXiv:2507.22062): worldwide image-text curation, as functions on Arrow tables.

The steps in their order: ``explode`` (records to texts), ``dedup``, ``language`` and ``match``
(identify, then match each text against its own language's metadata), ``counts``, ``thresholds``
and ``balance`` (section 3.3, algorithm 1), ``probabilities`` and ``draw`` (balanced sampling).
``sample`` and ``whatif`` answer what another threshold would give without a second pass.
"""
