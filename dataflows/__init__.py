"""How data moves at scale: Beam pipelines, one a recipe, over the plain functions of curation.

The only package that imports Beam, and only in the modules that build or run a pipeline.
"""
