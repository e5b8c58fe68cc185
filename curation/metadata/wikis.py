"""Wikipedia's language codes (Meta CLIP 2, spec sections 3.2, 3.3, 3.5 and 3.6)."""

from __future__ import annotations

from collections.abc import Collection

from schemas.errors import InputError

_CODES = """
ab ace ady af als alt am ami an ang anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar
bat_smg bbc bcl be be_tarask bew bg bh bi bjn blk bm bn bo bpy br bs bug bxr ca cbk_zam cdo ce ceb
ch chr chy ckb co cr crh cs csb cu cv cy da dag de dga din diq dsb dtp dty dv dz ee el eml en eo
es et eu ext fa fat ff fi fiu_vro fj fo fon fr frp frr fur fy ga gag gan gcr gd gl glk gn gom gor
got gpe gu guc gur guw gv ha hak haw he hi hif hr hsb ht hu hy hyw ia id ie ig igl ik ilo inh io
is it iu ja jam jbo jv ka kaa kab kbd kbp kcg kg ki kk kl km kn ko koi krc ks ksh ku kus kv kw ky
la lad lb lbe lez lfn lg li lij lld lmo ln lo lt ltg lv mad mai map_bms mdf mg mhr mi min mk ml mn
mni mnw mr mrj ms mt mwl my myv mzn nah nap nds nds_nl ne new nia nl nn no nov nqo nrm nso nv ny
oc olo om or os pa pag pam pap pcd pcm pdc pfl pi pih pl pms pnb pnt ps pt pwn qu rm rmy rn ro
roa_rup roa_tara ru rue rw sa sah sat sc scn sco sd se sg sh shi shn si simple sk skr sl sm smn sn
so sq sr srn ss st stq su sv sw szl szy ta tay tcy te tet tg th ti tk tl tly tn to tpi tr trv ts
tt tum tw ty tyv udm ug uk ur uz ve vec vep vi vls vo wa war wo wuu xal xh xmf yi yo za zea zgh zh
zh_classical zh_min_nan zh_yue zu
"""
WIKIPEDIAS: tuple[str, ...] = tuple(_CODES.split())
"""The 330 codes of the released list (the paper says 329); it includes `en` and `simple`."""

UNSPACED = frozenset(
    ("bo", "dz", "ja", "km", "lo", "my", "ryu", "th", "zh", "zh_classical", "zh_yue")
)
"""Wikipedias whose text goes to a word segmenter and whose bigrams are joined without a space."""

OTHER = "other"
"""The metadata key of every Wikipedia that no language identification code reaches."""

# Database names and page-view projects that differ from the code of the list.
_RENAMED = {"be_x_old": "be_tarask"}


def wiki_of_database(name: str, source: str) -> str:
    """`enwiki` -> `en`, `be_x_oldwiki` -> `be_tarask`. InputError for a sister project."""
    if not name.endswith("wiki"):
        raise InputError(
            f"{source}: the dump is of {name or 'an unnamed database'!r}, not of a Wikipedia "
            "(database names end in 'wiki'); leave it out of wikipedia=."
        )
    code = name.removesuffix("wiki").replace("-", "_")
    return _RENAMED.get(code, code)


def metadata_key(wiki: str, keys: Collection[str]) -> str:
    """The metadata key that owns a Wikipedia: the rule of section 3.6.

    `keys` are the metadata keys that language identification can reach. A code with "_" goes to
    the part before it; a code no label reaches goes to "other". The released code drops codes whose
    prefix is not a key (bat_smg, cbk_zam, fiu_vro, map_bms, roa_rup, roa_tara); here they go to
    "other" as well (spec 9.2, defect 9).
    """
    prefix = wiki.partition("_")[0]
    return prefix if prefix in keys else OTHER
