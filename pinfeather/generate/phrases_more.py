"""German, French, Spanish and Japanese patterns by domain; nouns stand where they need no agreement."""

from __future__ import annotations

from pinfeather.generate.vocabulary import Phrases, surfaces

# fmt: off


def _lists(base: dict[str, str], titles: str, notes: str, queries: str, boards: str, shelves: str) -> Phrases:
    """Phrases of one domain, with what all domains of a language share in ``base``."""
    return Phrases(
        titles=surfaces(base["titles"] + "|" + titles),
        bare_titles=surfaces(base["bare"]),
        notes=surfaces(base["notes"] + "|" + notes),
        attribute_notes=surfaces(base["attributes"]),
        queries=surfaces(base["queries"] + "|" + queries),
        boards=surfaces(base["boards"] + "|" + boards),
        shelves=surfaces(shelves),
    )


_DE = {
    "titles": "{np}|{np}|{np} – meine Ideen|{k} Ideen: {np}|{np}: so geht's|Inspiration: {np}",
    "bare": "Endlich fertig|Vorher / nachher|Gerade verliebt|Neu bei uns|Teil {k}|Das Wochenende war gut",
    "notes": "Link ist unten.|Gemerkt für später.|Hat mich ein Wochenende gekostet.|In echt noch schöner.",
    "attributes": "Bei uns: {a}.|Am liebsten {a}.|Und zwar {a}.|Diesmal {a}.",
    "queries": "{np}|{np}|{np}|{np} ideen",
    "boards": "{n}|{n} Ideen|{n} – Inspiration|{n} {a}",
}
_FR = {
    "titles": "{np}|{np}|{np} : mes idées|{k} idées : {np}|{np}, mode d'emploi|Inspiration : {np}",
    "bare": "Enfin terminé|Avant / après|Gros coup de cœur|Petit bonheur du dimanche|Épisode {k}|À garder",
    "notes": "Lien dans le post.|Gardé pour plus tard.|Encore mieux en vrai.|Un week-end de travail.",
    "attributes": "Et en plus, {a}.|Cette fois, {a}.|Toujours {a}.|Oui, {a}.",
    "queries": "{np}|{np}|{np}|idée {np}",
    "boards": "{n}|Idées {n}|{n} inspiration|{n} {a}",
}
_ES = {
    "titles": "{np}|{np}|{np}: mis ideas|{k} ideas: {np}|{np} paso a paso|Inspiración: {np}",
    "bare": "Por fin terminado|Antes y después|Mi favorito|Domingo perfecto|Parte {k}|Para no olvidar",
    "notes": "Enlace abajo.|Guardado para luego.|En persona gana mucho.|Nos llevó un fin de semana.",
    "attributes": "En casa, {a}.|Esta vez {a}.|Siempre {a}.|Mejor {a}.",
    "queries": "{np}|{np}|{np}|ideas {np}",
    "boards": "{n}|Ideas {n}|{n} inspiración|{n} {a}",
}
_JA = {
    "titles": "{np}|{np}|{np}のアイデア|{np}{k}選|お気に入りの{np}|{np}まとめ",
    "bare": "今日の一枚|やっと完成|ビフォーアフター|お気に入り|記録 その{k}",
    "notes": "保存しておきたい。|詳しくはリンクから。|実物はもっと素敵。|週末に仕上げました。",
    "attributes": "今回は{a}ものを。|{a}ものを探していました。|やっぱり{a}ものがいい。",
    "queries": "{np}|{np}|{np} アイデア|{np} おすすめ",
    "boards": "{n}|{n} アイデア|好きな{n}|{a}{n}",
}

GERMAN: dict[str, Phrases] = {
    "decor": _lists(_DE, "Unser Zuhause: {np}|Einrichten: {np}",
        "Erst gestrichen, dann verliebt.|Der Vermieter weiß von nichts.", "{np} einrichten|{np} deko", "Zuhause: {n}",
        "Zuhause|Wohnen|Traumhaus|Neue Wohnung|Deko|Einrichtung"),
    "garden": _lists(_DE, "Im Garten: {np}|{np} anlegen",
        "Die Schnecken waren schneller.|Erst der Boden, dann die Pflanzen.", "{np} anlegen|{np} pflegen",
        "Garten: {n}", "Garten|Gartenglück|Grüner Daumen|Draußen|Gartenideen"),
    "recipes": _lists(_DE, "{np} wie bei Oma|Rezept: {np}|Schnelle Küche: {np}",
        "Am nächsten Tag noch besser.|Die Kinder wollten Nachschlag.", "{np} rezept|rezept {np}|{np} einfach",
        "{n} Rezepte", "Rezepte|Lecker|Kochen|Essen|Backen & Kochen|Feierabendküche"),
    "travel": _lists(_DE, "{np}: unsere Route|{np}: Tipps|Unterwegs: {np}",
        "Unbedingt früh losgehen.|In der Nebensaison ganz für uns.", "{np} tipps|{np} route", "{n} Wunschliste",
        "Reisen|Fernweh|Urlaub|Da will ich hin|Bucket List"),
    "fashion": _lists(_DE, "{np} kombinieren|Neu im Schrank: {np}", "Fällt groß aus.|Seit Wochen nichts anderes an.",
        "{np} kombinieren|{np} kaufen", "{n} Wunschliste", "Mode|Mein Stil|Outfits|Kleiderschrank|Anziehen"),
    "beauty": _lists(_DE, "Anleitung: {np}", "Hält seit zehn Tagen.|Ging in zwanzig Minuten.", "{np} anleitung",
        "{n} Looks", "Beauty|Schön|Haare & Make-up"),
    "crafts": _lists(_DE, "Anleitung: {np}|Selbst gemacht: {np}", "Aus lauter Resten.|Drei Abende auf dem Sofa.",
        "{np} anleitung|{np} kostenlos", "{n} Projekte", "Basteln|DIY|Selbermachen|Kreativ|Handarbeit"),
    "party": _lists(_DE, "Fürs Fest: {np}", "Alles vom Wochenmarkt.|In einer Stunde aufgebaut.", "{np} selber machen",
        "{n} fürs Fest", "Feiern|Hochzeit|Party|Feste"),
}
FRENCH: dict[str, Phrases] = {
    "decor": _lists(_FR, "Chez nous : {np}|Déco : {np}", "On a tout repeint, deux fois.|Chiné en brocante.",
        "déco {np}|aménager {np}", "Notre {n}", "Maison|Déco|Chez moi|Future maison|Intérieur|Appart"),
    "garden": _lists(_FR, "Au jardin : {np}|{np} au fil des saisons",
        "Les limaces ont adoré aussi.|D'abord le sol, ensuite les plantes.", "{np} entretien|créer {np}",
        "Mon jardin : {n}", "Jardin|Main verte|Dehors|Au jardin|Plantes"),
    "recipes": _lists(_FR, "Recette : {np}|{np} de mamie|{np} facile",
        "Encore meilleur le lendemain.|Les enfants en redemandent.", "recette {np}|{np} recette facile",
        "Recettes {n}", "Recettes|Miam|Cuisine|À tester|Gourmandises|Repas du soir"),
    "travel": _lists(_FR, "{np} : notre itinéraire|{np} : nos conseils|Carnet de voyage : {np}",
        "Partez tôt, vous serez seuls.|Hors saison, le rêve.", "{np} conseils|itinéraire {np}", "Prochain {n}",
        "Voyages|Évasion|À visiter|Envies d'ailleurs|Vacances"),
    "fashion": _lists(_FR, "Comment porter : {np}|Nouveau dressing : {np}",
        "Taille un peu grand.|Je ne le quitte plus.", "comment porter {np}|{np} tenue", "{n} envies",
        "Mode|Mon style|Dressing|Tenues|Looks"),
    "beauty": _lists(_FR, "Tuto : {np}", "Tient dix jours.|Vingt minutes chrono.", "tuto {np}", "{n} beauté",
        "Beauté|Coiffure & maquillage|Jolie"),
    "crafts": _lists(_FR, "Tuto : {np}|Fait main : {np}",
        "Avec des chutes, rien d'autre.|Trois soirées devant une série.", "tuto {np}|modèle gratuit {np}",
        "Projets {n}", "Loisirs créatifs|DIY|Fait main|À faire|Créa"),
    "party": _lists(_FR, "Jour de fête : {np}", "Tout vient du marché.|Installé en une heure.",
        "{np} à faire soi-même", "{n} de fête", "Fêtes|Mariage|Réception|Anniversaires"),
}
SPANISH: dict[str, Phrases] = {
    "decor": _lists(_ES, "En casa: {np}|Decoración: {np}",
        "Pintamos dos veces, valió la pena.|Del rastro, por veinte euros.", "decorar {np}|decoración {np}",
        "{n} soñado", "Casa|Hogar|Deco|Mi futura casa|Piso nuevo|Interiores"),
    "garden": _lists(_ES, "En el jardín: {np}|Cuidar {np}",
        "Los caracoles llegaron antes.|Primero la tierra, luego las plantas.", "cuidados {np}|cómo hacer {np}",
        "Jardín: {n}", "Jardín|Plantas|Mi huerto|Aire libre|Verde"),
    "recipes": _lists(_ES, "Receta: {np}|{np} de la abuela|{np} fácil", "Al día siguiente, mejor.|Repitieron todos.",
        "receta {np}|{np} receta fácil", "Recetas de {n}", "Recetas|Qué rico|Cocina|Para cenar|Por probar|Comidas"),
    "travel": _lists(_ES, "{np}: nuestra ruta|{np}: consejos|Diario de viaje: {np}",
        "Salid temprano y estaréis solos.|Fuera de temporada, una maravilla.", "{np} consejos|ruta {np}",
        "{n} pendiente", "Viajes|Lugares por visitar|Escapadas|Vacaciones|Algún día"),
    "fashion": _lists(_ES, "Cómo combinar: {np}|Nuevo en mi armario: {np}", "Talla grande.|No me lo quito.",
        "cómo combinar {np}|comprar {np}", "{n} deseos", "Moda|Mi estilo|Ropa|Looks|Armario"),
    "beauty": _lists(_ES, "Tutorial: {np}", "Dura diez días.|Veinte minutos justos.", "tutorial {np}", "{n} bonito",
        "Belleza|Pelo y maquillaje|Guapa"),
    "crafts": _lists(_ES, "Tutorial: {np}|Hecho a mano: {np}", "Todo con retales.|Tres tardes de sofá.",
        "{np} patrón gratis|tutorial {np}", "Proyectos de {n}", "Manualidades|DIY|Hecho a mano|Creativa|Por hacer"),
    "party": _lists(_ES, "Para celebrar: {np}", "Todo del mercado.|Montado en una hora.", "{np} en casa",
        "{n} de fiesta", "Fiestas|Boda|Celebrar|Cumples"),
}
JAPANESE: dict[str, Phrases] = {
    "decor": _lists(_JA, "{np}のある暮らし", "模様替えしました。", "{np} インテリア", "理想の{n}",
        "インテリア|おうち|暮らし|新居"),
    "garden": _lists(_JA, "{np}の育て方", "今年もよく育ちました。", "{np} 育て方", "うちの{n}", "ガーデニング|植物|庭"),
    "recipes": _lists(_JA, "{np}のレシピ|簡単{np}", "翌日もおいしい。", "{np} レシピ|{np} 作り方", "{n}レシピ",
        "レシピ|おいしいもの|ごはん|作りたい"),
    "travel": _lists(_JA, "{np}の記録|{np}モデルコース", "早朝が空いています。", "{np} モデルコース", "行きたい{n}",
        "旅行|行きたい場所|旅"),
    "fashion": _lists(_JA, "{np}コーデ", "少し大きめです。", "{np} コーデ", "欲しい{n}", "ファッション|コーデ|服"),
    "beauty": _lists(_JA, "{np}のやり方", "十日もちました。", "{np} やり方", "{n}デザイン", "美容|ネイル・メイク"),
    "crafts": _lists(_JA, "{np}の作り方", "余り糸で作りました。", "{np} 作り方", "作りたい{n}",
        "ハンドメイド|手作り|趣味"),
    "party": _lists(_JA, "おもてなしの{np}", "一時間で準備できました。", "{np} 手作り", "{n}の参考",
        "パーティー|お祝い"),
}

GENERIC_MORE: dict[str, tuple[str, ...]] = {
    "de": surfaces("Ideen|Sonstiges|Kram|Merkliste|schöne Dinge|für später|Inspiration|alles Mögliche|♡"),
    "fr": surfaces("idées|divers|à garder|jolies choses|pour plus tard|inspiration|mes trucs|♡"),
    "es": surfaces("ideas|cosas|varios|cosas bonitas|para luego|inspiración|guardados|♡"),
    "ja": surfaces("お気に入り|あとで|アイデア|いろいろ|保存"),
}
SITES_MORE: dict[str, tuple[str, ...]] = {
    "de": surfaces("Wiesenglück|Küchenfenster|Altbauliebe|Kleine Auszeit|Lindenhof"),
    "fr": surfaces("La Petite Remise|Chez Margot|Carnet Vert|Atelier du Jeudi|Maison Tilleul"),
    "es": surfaces("Casa Limonero|La Mesa Azul|Diario de Otoño|Taller Mimbre|Sobremesa"),
    "ja": surfaces("ひだまり日記|小さな台所|木のうつわ|ことりの部屋"),
}
