"""Wording around the stamps' captions, by language.

Placeholders: {c} the stamp's caption as written, {n} its name, {b} the background phrase, {k} four
digits, {y} a year, {p} a price. `describe`, `shop` and `generic` belong to the training part of the
pool, `test` to its test part only: no wording occurs in both.
"""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "gray")
"""Names of the background colours, in the order of every `Phrases.colours`."""


@dataclass(frozen=True)
class Phrases:
    """One language: `background` holds {} for a colour; the rest are templates."""

    background: str
    colours: tuple[str, ...]
    describe: tuple[str, ...]
    shop: tuple[str, ...]
    generic: tuple[str, ...]
    test: tuple[str, ...]


FILE_NAMES = (
    "IMG_{k}.jpg",
    "DSC0{k}",
    "image{k}.png",
    "{s}.png",
    "{s}_{k}",
    "{s}-{k}x{k}",
    "{s}-{p}-thumbnail.gif",
    "screenshot-{y}-{k}.png",
    "untitled-{p}",
    "product_image_{k}",
)
"""File names as alt texts, in no language; {s} is the last part of the stamp's id."""

PHRASES: dict[str, Phrases] = {
    "en": Phrases(
        "on {} background",
        (
            "a red",
            "an orange",
            "a yellow",
            "a green",
            "a blue",
            "a purple",
            "a pink",
            "a gray",
        ),
        (
            "{n} {b}",
            "{c} Picture {b}.",
            "Photo of a {n}, {y}",
            "A picture of {n} {b}",
            "Close-up of {n} taken in {y}",
            "{n} stock photo, {b}",
            "Our summer holiday: {n}",
            "{n} - free image for your school project",
        ),
        (
            "Buy {n} now - free shipping on all orders",
            "{n} for sale, only ${p}.99",
            "{n} poster | wall art print | fast delivery",
            "Cheap {n} online, best price ${p}.50, add to cart",
        ),
        (
            "Click to enlarge the image",
            "Back to the home page",
            "Follow us on social media",
            "View all photos in this gallery",
        ),
        (
            "Here you can see {n}",
            "Museum drawer {k}: {n}",
            "Look closely, this must be {n}",
            "Somebody painted {n} for the exhibition",
        ),
    ),
    "fr": Phrases(
        "sur fond {}",
        ("rouge", "orange", "jaune", "vert", "bleu", "violet", "rose", "gris"),
        (
            "{n} {b}",
            "{c} Image {b}.",
            "Photo : {n}, année {y}",
            "{n} en gros plan, photographie de {y}",
            "{n}, image libre de droits {b}",
            "Nos vacances d'été : {n}",
            "{n} - dessin à imprimer pour les enfants",
        ),
        (
            "Acheter {n} - livraison gratuite dès {p} euros",
            "{n} pas cher, seulement {p},99 €",
            "Affiche {n} | décoration murale | livraison rapide",
            "{n} en vente dans notre boutique, ajouter au panier",
        ),
        (
            "Cliquez pour agrandir l'image",
            "Retour à la page d'accueil",
            "Suivez-nous sur les réseaux sociaux",
            "Voir toutes les photos de la galerie",
        ),
        (
            "Voici ce que l'on voit : {n}",
            "Tiroir du musée numéro {k} : {n}",
            "Regardez bien, c'est sans doute {n}",
            "Quelqu'un a peint {n} pour l'exposition",
        ),
    ),
    "es": Phrases(
        "sobre fondo {}",
        ("rojo", "naranja", "amarillo", "verde", "azul", "morado", "rosa", "gris"),
        (
            "{n} {b}",
            "{c} Imagen {b}.",
            "Foto de {n}, año {y}",
            "Primer plano de {n}, fotografía de {y}",
            "{n}, imagen gratuita {b}",
            "Nuestras vacaciones de verano: {n}",
            "{n} - dibujo para colorear para los niños",
        ),
        (
            "Comprar {n} - envío gratis a partir de {p} euros",
            "{n} en oferta, solo {p},99 €",
            "Póster de {n} | decoración de pared | entrega rápida",
            "{n} barato en nuestra tienda, añadir al carrito",
        ),
        (
            "Haga clic para ampliar la imagen",
            "Volver a la página de inicio",
            "Síguenos en las redes sociales",
            "Ver todas las fotos de la galería",
        ),
        (
            "Aquí se puede ver lo siguiente: {n}",
            "Cajón del museo número {k}: {n}",
            "Mira bien, esto debe de ser {n}",
            "Alguien pintó {n} para la exposición",
        ),
    ),
    "it": Phrases(
        "su sfondo {}",
        ("rosso", "arancione", "giallo", "verde", "blu", "viola", "rosa", "grigio"),
        (
            "{n} {b}",
            "{c} Immagine {b}.",
            "Foto di {n}, anno {y}",
            "Primo piano di {n}, fotografia del {y}",
            "{n}, immagine gratuita {b}",
            "Le nostre vacanze estive: {n}",
            "{n} - disegno da colorare per i bambini",
        ),
        (
            "Acquista {n} - spedizione gratuita da {p} euro",
            "{n} in offerta, solo {p},99 €",
            "Poster {n} | decorazione da parete | consegna veloce",
            "{n} nel nostro negozio, aggiungi al carrello",
        ),
        (
            "Clicca per ingrandire l'immagine",
            "Torna alla pagina iniziale",
            "Seguici sui social network",
            "Guarda tutte le foto della galleria",
        ),
        (
            "Ecco quello che si vede: {n}",
            "Cassetto del museo numero {k}: {n}",
            "Guarda bene, questo deve essere {n}",
            "Qualcuno ha dipinto {n} per la mostra",
        ),
    ),
    "pt": Phrases(
        "em fundo {}",
        ("vermelho", "laranja", "amarelo", "verde", "azul", "roxo", "rosa", "cinzento"),
        (
            "{n} {b}",
            "{c} Imagem {b}.",
            "Foto de {n}, ano {y}",
            "Fotografia de {n} tirada em {y}",
            "{n}, imagem gratuita {b}",
            "As nossas férias de verão: {n}",
            "{n} - desenho para colorir para as crianças",
        ),
        (
            "Comprar {n} - portes grátis a partir de {p} euros",
            "{n} em promoção, apenas {p},99 €",
            "Cartaz de {n} | decoração de parede | entrega rápida",
            "{n} na nossa loja, adicionar ao carrinho",
        ),
        (
            "Clique para ampliar a imagem",
            "Voltar à página inicial",
            "Siga-nos nas redes sociais",
            "Ver todas as fotos da galeria",
        ),
        (
            "Aqui pode ver-se o seguinte: {n}",
            "Gaveta do museu número {k}: {n}",
            "Olhe bem, isto deve ser {n}",
            "Alguém pintou {n} para a exposição",
        ),
    ),
    "nl": Phrases(
        "op een {} achtergrond",
        ("rode", "oranje", "gele", "groene", "blauwe", "paarse", "roze", "grijze"),
        (
            "{n} {b}",
            "{c} Afbeelding {b}.",
            "Foto van {n} uit het jaar {y}",
            "Close-up van {n}, genomen in {y}",
            "Onze zomervakantie: {n}",
            "{n} - kleurplaat voor kinderen",
        ),
        (
            "Koop {n} nu - gratis verzending vanaf {p} euro",
            "{n} te koop voor slechts {p},99 euro",
            "{n} in onze winkel, voeg toe aan winkelwagen",
        ),
        (
            "Klik om de afbeelding te vergroten",
            "Terug naar de beginpagina",
            "Volg ons op sociale media",
        ),
        (
            "Hier is het volgende te zien: {n}",
            "Museumlade nummer {k}: {n}",
            "Kijk goed, dit moet wel {n} zijn",
        ),
    ),
    "de": Phrases(
        "auf {} Hintergrund",
        ("rotem", "orangem", "gelbem", "grünem", "blauem", "violettem", "rosa", "grauem"),
        (
            "{n} {b}",
            "{c} Bild {b}.",
            "Foto: {n}, aufgenommen im Jahr {y}",
            "{n} in Nahaufnahme, Fotografie von {y}",
            "{n}, kostenloses Bild {b}",
            "Unser Sommerurlaub: {n}",
            "{n} - Ausmalbild für Kinder",
        ),
        (
            "{n} jetzt kaufen - kostenloser Versand ab {p} Euro",
            "{n} günstig im Angebot, nur {p},99 €",
            "Poster {n} | Wandbild | schnelle Lieferung",
            "{n} in unserem Geschäft, in den Warenkorb legen",
        ),
        (
            "Klicken Sie, um das Bild zu vergrößern",
            "Zurück zur Startseite",
            "Folgen Sie uns in den sozialen Medien",
            "Alle Fotos der Galerie ansehen",
        ),
        (
            "Hier ist Folgendes zu sehen: {n}",
            "Museumsschublade Nummer {k}: {n}",
            "Schau genau hin, das muss {n} sein",
            "Jemand hat für die Ausstellung gemalt: {n}",
        ),
    ),
}
