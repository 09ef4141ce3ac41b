"""Real corpora that a model learns in seconds: German nouns, letter by letter, to their plurals,
and a few German sentences.
"""

from pathlib import Path
from typing import Dict, List, Sequence, Tuple

NOUNS = """
Hand Hände  Haus Häuser  Baum Bäume  Traum Träume  Maus Mäuse  Laus Läuse  Raum Räume
Wand Wände  Band Bänder  Land Länder  Rand Ränder  Stadt Städte  Nacht Nächte  Macht Mächte
Kind Kinder  Rind Rinder  Bild Bilder  Lied Lieder  Feld Felder  Geld Gelder  Nest Nester
Tag Tage  Weg Wege  Berg Berge  Zwerg Zwerge  Tisch Tische  Fisch Fische  Brief Briefe
Hund Hunde  Pfund Pfunde  Freund Freunde  Mond Monde  Stein Steine  Bein Beine  Wein Weine
Blume Blumen  Lampe Lampen  Katze Katzen  Tasse Tassen  Nase Nasen  Hose Hosen  Rose Rosen
Frau Frauen  Tür Türen  Uhr Uhren  Bahn Bahnen  Zahl Zahlen  Wahl Wahlen  Farbe Farben
Buch Bücher  Tuch Tücher  Wurm Würmer  Turm Türme  Sohn Söhne  Ton Töne  Korb Körbe
Auto Autos  Kino Kinos  Foto Fotos  Büro Büros  Sofa Sofas  Oma Omas
""".split()

SENTENCES = """
Der Hund schläft.|The dog sleeps.
Die Katze schläft.|The cat sleeps.
Der Hund trinkt Wasser.|The dog drinks water.
Die Katze trinkt Milch.|The cat drinks milk.
Das Kind liest ein Buch.|The child reads a book.
Die Frau liest einen Brief.|The woman reads a letter.
Der Mann schreibt einen Brief.|The man writes a letter.
Das Kind sieht den Hund.|The child sees the dog.
Der Mann sieht die Katze.|The man sees the cat.
Die Frau trinkt Wasser.|The woman drinks water.
Das Haus ist alt.|The house is old.
Der Baum ist groß.|The tree is tall.
Die Stadt ist schön.|The town is beautiful.
Das Wasser ist kalt.|The water is cold.
Das Buch ist neu.|The book is new.
"""

TEST, SHORT_TEST = 11, 3  # more than 8 but no multiple of it; fewer than 8


def noun_pairs() -> Dict[str, List[Tuple[str, str]]]:
    """(singular, plural) pairs, letters apart.

    valid, test and the short test1 are words of train, so that a model's answers are known; in
    test2 every reference is the plural of another word.
    """
    spelled = [" ".join(noun) for noun in NOUNS]
    pairs = list(zip(spelled[::2], spelled[1::2]))
    test = pairs[: 3 * TEST : 3]
    singulars, plurals = zip(*test)
    return {
        "train": pairs,
        "valid": pairs[1::7],
        "test": test,
        "test1": pairs[5 : 5 + SHORT_TEST],
        "test2": list(zip(singulars, plurals[1:] + plurals[:1])),
    }


def sentence_pairs() -> List[Tuple[str, ...]]:
    return [tuple(line.split("|")) for line in SENTENCES.strip().splitlines()]


def write(folder: Path, name: str, pairs: Sequence[Tuple[str, ...]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for language, side in zip(("sg", "pl"), zip(*pairs)):
        text = "".join(line + "\n" for line in side)
        (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
