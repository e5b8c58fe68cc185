"""Metadata of Meta CLIP: lists of concepts by language, from wordnets, Wikipedia text and Wikipedia
page views (spec section 3).
"""
