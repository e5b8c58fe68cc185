"""Rebuild `data/wordnets` from the Open Multilingual Wordnet lemma tables.

    python tools/build_wordnets.py SOURCE_FOLDER data/wordnets

SOURCE_FOLDER holds one Parquet file a wordnet with columns `synset` and `lemma` (omwn/omw-data's
`wns/*/wn-data-*.tab` and `wns/wikt/wn-wikt-*.tab` as tables; `eng` from Princeton WordNet 3.0). The
output is one Parquet file a language with the distinct lemmas in code point order, `index.json`
(what the loader reads) and `SOURCE.md`. Licence texts in `licences/` are kept by hand. The same
input and library versions give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

OMW = "github.com/omwn/omw-data at f75be19ec590"
PRINCETON = "Princeton WordNet 3.0 (Debian package wordnet-base 1:3.0-37)"


@dataclass(frozen=True)
class Wordnet:
    """One shipped wordnet: metadata key (a lid.176 code), source file and whom to credit."""

    key: str
    source: str
    name: str
    licence: str
    licence_file: str
    credit: str


CC_BY_3 = ("CC BY 3.0", "CC-BY-3.0.txt")
CC_BY_SA_3 = ("CC BY-SA 3.0", "CC-BY-SA-3.0.txt")
CC_BY_SA_4 = ("CC BY-SA 4.0", "CC-BY-SA-4.0.txt")
WORDNET = ("WordNet licence", "WordNet.txt")
MIT = ("MIT", "MIT.txt")
CATALAN = "Gonzalez-Agirre, Laparra and Rigau 2012, Multilingual Central Repository 3.0"
BAHASA = "Nurril Hirfana Mohamed Noor, Suerya Sapuan and Francis Bond 2011"
NORDIC = "Fjeld and Nygaard 2009, NorNet (Norwegian WordNet), Kaldera språkteknologi"
WIKT = (
    "Wiktionary contributors, linked by Bond and Foster 2013 (Extended Open Multilingual Wordnet)"
)


def _wikt(key: str, code: str, language: str) -> Wordnet:
    return Wordnet(key, f"wikt-{code}", f"Wiktionary lemmas ({language})", *CC_BY_SA_3, WIKT)


WORDNETS = (
    _wikt("af", "afr", "Afrikaans"),
    Wordnet("ar", "arb", "Arabic WordNet", *CC_BY_SA_3, "Black et al. 2006; Abouenour et al. 2013"),
    Wordnet("bg", "bul", "BulTreeBank Wordnet", *CC_BY_3, "Simov and Osenova 2010"),
    Wordnet("ca", "cat", "Multilingual Central Repository (Catalan)", *CC_BY_3, CATALAN),
    Wordnet("da", "dan", "DanNet", "DanNet licence", "DanNet.txt", "Pedersen et al. 2009"),
    _wikt("de", "deu", "German"),
    Wordnet("en", "eng", "WordNet 3.0", *WORDNET, "Princeton University"),
    _wikt("es", "spa", "Spanish"),
    Wordnet(
        "eu",
        "eus",
        "Multilingual Central Repository (Basque)",
        *CC_BY_3,
        "Pociello, Agirre and Aldezabal 2011",
    ),
    _wikt("fi", "fin", "Finnish"),
    Wordnet("fr", "fra", "WOLF", "CeCILL-C", "CeCILL-C.txt", "Sagot and Fišer 2008"),
    Wordnet("gl", "glg", "Multilingual Central Repository (Galician)", *CC_BY_3, CATALAN),
    _wikt("hi", "hin", "Hindi"),
    Wordnet("id", "ind", "Wordnet Bahasa (Indonesian)", *MIT, BAHASA),
    Wordnet("it", "ita", "MultiWordNet", *CC_BY_3, "Pianta, Bentivogli and Girardi 2002"),
    _wikt("ja", "jpn", "Japanese"),
    _wikt("ko", "kor", "Korean"),
    Wordnet("ms", "zsm", "Wordnet Bahasa (Malaysian)", *MIT, BAHASA),
    Wordnet("nl", "nld", "Open Dutch WordNet", *CC_BY_SA_4, "Postma et al. 2016"),
    Wordnet("nn", "nno", "Norwegian Wordnet (Nynorsk)", *WORDNET, NORDIC),
    Wordnet("no", "nob", "Norwegian Wordnet (Bokmål)", *WORDNET, NORDIC),
    Wordnet("pl", "pol", "plWordNet", *WORDNET, "Piasecki, Szpakowicz and Broda 2009"),
    Wordnet("pt", "por", "OpenWN-PT", *CC_BY_SA_4, "de Paiva and Rademaker 2012"),
    _wikt("ru", "rus", "Russian"),
    Wordnet("sk", "slk", "Slovak WordNet", *CC_BY_SA_3, "Slovak National Corpus, JÚĽŠ SAV"),
    Wordnet("sl", "slv", "sloWNet", *CC_BY_SA_3, "Fišer, Novak and Erjavec 2012"),
    Wordnet("sq", "sqi", "Albanet", *CC_BY_3, "Ruci 2008"),
    Wordnet("sv", "swe", "WordNet-SALDO", *CC_BY_3, "Borin, Forsberg and Lönngren 2013"),
    _wikt("sw", "swa", "Swahili"),
    _wikt("th", "tha", "Thai"),
    _wikt("tr", "tur", "Turkish"),
    _wikt("uk", "ukr", "Ukrainian"),
    _wikt("vi", "vie", "Vietnamese"),
    Wordnet("zh", "cmn", "Chinese Open Wordnet", *WORDNET, "Wang and Bond 2013"),
)


def lemma_table(path: Path) -> pa.Table:
    """Distinct lemmas in code point order; `head` marks a lemma that is the first of some synset
    (it names the synset).
    """
    rows = pq.read_table(path, columns=["synset", "lemma"]).to_pydict()
    head: dict[str, bool] = {}
    seen: set[str] = set()
    for synset, lemma in zip(rows["synset"], rows["lemma"], strict=True):
        if lemma:
            head[lemma] = head.get(lemma, False) or synset not in seen
            seen.add(synset)
    lemmas = sorted(head)
    return pa.table(
        {"lemma": pa.array(lemmas, pa.string()), "head": pa.array([head[x] for x in lemmas])}
    )


def build(source: Path, target: Path) -> None:
    """Write every language file, `index.json` and `SOURCE.md` under `target`."""
    entries = []
    for wordnet in WORDNETS:
        table = lemma_table(source / f"{wordnet.source}.parquet")
        file = target / f"{wordnet.key}.parquet"
        pq.write_table(
            table,
            file,
            compression="zstd",
            compression_level=19,
            use_dictionary=False,
            column_encoding={"lemma": "DELTA_BYTE_ARRAY", "head": "RLE"},
            write_statistics=False,
        )
        data = file.read_bytes()
        origin = PRINCETON if wordnet.source == "eng" else OMW
        entries.append(
            asdict(wordnet)
            | {
                "origin": origin,
                "lemmas": table.num_rows,
                "bytes": len(data),
                "blake2b": hashlib.blake2b(data, digest_size=16).hexdigest(),
            }
        )
    text = json.dumps({"version": 1, "wordnets": entries}, ensure_ascii=False, indent=1)
    (target / "index.json").write_text(text + "\n", encoding="utf-8")
    (target / "SOURCE.md").write_text(_source_page(entries), encoding="utf-8")


def _source_page(entries: list[dict[str, object]]) -> str:
    lines = [
        "# Shipped wordnets",
        "",
        "Lemmas by language for `metadata=builtin`. Data only: each file stays under the licence",
        "of its source, whose text lies in `licences/`, and keeps its notice wherever the file or",
        "entries made from it go. The code of this project is not under these licences, and these",
        "files are not under the project's.",
        "",
        "Changes made to the sources: only lemmas are kept (no glosses, no relations), duplicates",
        "removed, sorted by code point; column `head` says that the lemma is the first of some",
        "synset. `python tools/build_wordnets.py` writes the files again.",
        "",
        f"* OMW: {OMW}, https://github.com/omwn/omw-data",
        f"* English: {PRINCETON}, https://wordnet.princeton.edu",
        "* OMW states the Portuguese licence as CC BY-SA without a version; it is listed as 4.0.",
        "",
        "| key | wordnet | source file | lemmas | bytes | licence | text | credit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for e in entries:
        lines.append(
            f"| {e['key']} | {e['name']} | {e['source']} | {e['lemmas']} | {e['bytes']} "
            f"| {e['licence']} | licences/{e['licence_file']} | {e['credit']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: build_wordnets.py SOURCE_FOLDER TARGET_FOLDER")
    build(Path(sys.argv[1]), Path(sys.argv[2]))
