"""Attribute values that a picture rarely shows: season, audience, budget, space, diet, method, occasion, place."""

from __future__ import annotations

from pinfeather.generate.vocabulary import Value, value

# fmt: off

SEASONS: tuple[Value, ...] = (
    value("season.spring", "spring|springtime|Easter", "for the first warm days", "für den Frühling|im Frühjahr",
        "de printemps|pour le printemps", "de primavera|para la primavera", "春の"),
    value("season.summer", "summer|summery|hot-weather", "for hot days|for a heatwave",
        "für den Sommer|für heiße Tage", "d'été|pour l'été", "de verano|para días de calor", "夏の|暑い日の"),
    value("season.autumn", "fall|autumn|October", "for sweater weather", "für den Herbst|im Herbst",
        "d'automne|pour l'automne", "de otoño|para el otoño", "秋の"),
    value("season.winter", "winter|cold-weather|snowy day", "for freezing mornings", "für den Winter|für kalte Tage",
        "d'hiver|pour l'hiver", "de invierno|para el frío", "冬の|寒い日の"),
)

AUDIENCES: tuple[Value, ...] = (
    value("audience.kids", "kid-friendly|toddler|children's", "for kids|with little ones",
        "für Kinder|für die Kleinen", "pour enfants|pour les petits", "para niños|con los peques",
        "子ども向けの|キッズ用の", family="audience.family"),
    value("audience.family", "family|family-size", "for the whole family", "für die ganze Familie|mit der Familie",
        "en famille|pour toute la famille", "en familia|para toda la familia", "家族向けの", family="audience.family"),
    value("audience.two", "couples|romantic", "for two|for couples", "zu zweit|für Paare", "à deux|en amoureux",
        "para dos|en pareja", "二人の|カップル向けの"),
    value("audience.solo", "solo|one-person", "on your own|for one", "allein|für eine Person",
        "en solo|pour une personne", "en solitario|para uno", "ひとりの|おひとり様の"),
    value("audience.men", "men's|menswear", "for men|for guys", "für Herren|für Männer", "pour homme",
        "de hombre|para chicos", "メンズの|男性向けの"),
    value("audience.petite", "petite|short-girl", "for short legs", "für kleine Frauen", "pour petite taille",
        "para bajitas", "小柄さん向けの"),
    value("audience.plus", "plus-size|curvy", "for curves", "in großen Größen|für Kurven", "grande taille",
        "talla grande|para curvy", "大きいサイズの"),
    value("audience.over50", "over-50|grown-up", "for women over 50", "ab 50|für Frauen ab 50", "après 50 ans",
        "para mayores de 50", "50代からの|大人の"),
    value("audience.beginner", "beginner|easy first|simple", "for absolute beginners", "für Anfänger|zum Einstieg",
        "pour débutants|pas à pas facile", "para principiantes|paso a paso fácil", "初心者向けの|簡単な"),
    value("audience.pets", "dog-friendly|pet-safe", "with the dog|for pet owners", "mit Hund|für Haustiere geeignet",
        "avec un chien|compatible animaux", "con perro|con mascotas", "ペットと楽しむ"),
)

BUDGETS: tuple[Value, ...] = (
    value("budget.cheap", "budget|cheap|affordable|thrifted", "on a budget|for next to nothing|on a shoestring",
        "für wenig Geld|günstig", "petit budget|pas cher", "low cost|con poco presupuesto", "プチプラの|節約の"),
    value("budget.luxury", "luxury|high-end|designer", "worth the splurge", "luxuriös|für gehobene Ansprüche",
        "de luxe|haut de gamme", "de lujo|de alta gama", "高級な|ラグジュアリーな"),
    value("budget.diy", "DIY|homemade|upcycled", "you can make yourself", "zum Selbermachen|selbst gemacht",
        "fait maison|à faire soi-même", "DIY|para hacer en casa", "手作りの|DIYの"),
)

SPACES: tuple[Value, ...] = (
    value("space.small", "small|tiny|compact", "for small spaces|when space is tight",
        "für kleine Räume|auf wenig Platz", "pour petit espace|gain de place",
        "para espacios pequeños|en pocos metros", "狭い部屋の|省スペースの"),
    value("space.rental", "renter-friendly|rental|no-drill", "for renters", "für Mietwohnungen|ohne Bohren",
        "pour locataires|sans percer", "para pisos de alquiler|sin taladrar", "賃貸でもできる|原状回復できる"),
    value("space.attic", "attic|loft-conversion|sloped-ceiling", "under the eaves", "unterm Dach|mit Dachschräge",
        "sous les combles|sous pente", "en la buhardilla|con techo inclinado", "屋根裏の", look="attic"),
    value("space.open", "open-plan|large|spacious", "in an open floor plan", "im offenen Wohnraum|mit viel Platz",
        "en espace ouvert|grand volume", "de concepto abierto|con mucho espacio", "広々とした|オープンな"),
    value("space.dark", "low-light|north-facing|dark", "with hardly any daylight|for a shady spot",
        "für dunkle Räume|im Schatten", "sans lumière directe|à l'ombre", "con poca luz|a la sombra",
        "日当たりの悪い|日陰の"),
    value("space.sunny", "sunny|full-sun|drought-tolerant", "for a hot dry spot", "für sonnige Lagen|bei Trockenheit",
        "en plein soleil|presque sans arrosage", "a pleno sol|con muy poco riego", "日当たりの良い|乾燥に強い"),
    value("space.windowsill", "windowsill|apartment|kitchen-window", "on the kitchen sill",
        "auf der Fensterbank|in der Wohnung", "sur le rebord de la fenêtre|en appartement",
        "en el alféizar|dentro de casa", "窓辺の|室内の", look="indoor"),
)

DIETS: tuple[Value, ...] = (
    value("diet.vegan", "vegan|plant-based|dairy-free", "without any animal products", "vegan|rein pflanzlich",
        "vegan|100 % végétal", "en versión vegana|sin lácteos ni huevo", "ヴィーガンの|植物性の", family="meatless"),
    value("diet.vegetarian", "vegetarian|meatless|veggie", "for meat-free Monday", "vegetarisch|ohne Fleisch",
        "version végétarienne|sans viande", "en versión vegetariana|sin carne", "ベジタリアンの", family="meatless"),
    value("diet.glutenfree", "gluten-free|flourless|coeliac-safe", "without wheat", "glutenfrei|ohne Mehl",
        "sans gluten|sans farine", "sin gluten|apto para celíacos", "グルテンフリーの|小麦粉なしの"),
    value("diet.lowcarb", "keto|low-carb|sugar-free", "without the carbs", "Low Carb|ohne Zucker",
        "sans sucre|pauvre en glucides", "sin azúcar|con pocos carbohidratos", "糖質オフの|低糖質の"),
    value("diet.protein", "high-protein|protein-packed|post-workout", "with 30 g of protein",
        "proteinreich|mit viel Eiweiß", "riche en protéines|version protéinée",
        "con mucha proteína|en versión proteica", "高たんぱくの"),
    value("diet.comfort", "creamy|cheesy|indulgent", "for comfort food nights", "cremig|richtig schlotzig",
        "tout en crème|version gourmande", "con mucha crema|en versión golosa", "濃厚な|クリーミーな"),
)

METHODS: tuple[Value, ...] = (
    value("method.onepot", "one-pot|one-pan|sheet-pan", "with just one pan to wash", "aus einem Topf|vom Blech",
        "tout en un|dans une seule casserole", "en una sola olla|de bandeja", "ワンポットの|ワンパンの"),
    value("method.slow", "slow cooker|crockpot|overnight", "that cooks itself", "aus dem Slow Cooker|über Nacht",
        "à la mijoteuse|cuisson lente", "en olla lenta|de cocción lenta", "スロークッカーの|ほったらかし"),
    value("method.airfryer", "air fryer|crispy air-fried", "in the air fryer",
        "aus der Heißluftfritteuse|aus dem Airfryer", "au airfryer|à la friteuse à air",
        "en freidora de aire|en airfryer", "エアフライヤーの|ノンフライの"),
    value("method.nobake", "no-bake|no-cook|raw", "without turning on the oven", "ohne Backen|ohne Kochen",
        "sans cuisson|sans four", "sin horno|sin cocción", "焼かない|火を使わない"),
    value("method.quick", "quick|15-minute|weeknight", "in under twenty minutes", "in 15 Minuten|fix gemacht",
        "express|prêt en 15 minutes", "en 15 minutos|exprés", "時短の|15分でできる"),
    value("method.prep", "make-ahead|meal prep|freezer", "to batch cook on Sunday", "zum Vorbereiten|zum Einfrieren",
        "à préparer à l'avance|pour le batch cooking", "para preparar con antelación|para congelar",
        "作り置きの|冷凍できる"),
)

OCCASIONS: tuple[Value, ...] = (
    value("occasion.wedding", "wedding|bridal|ceremony", "for a wedding", "für die Hochzeit|zur Trauung",
        "de mariage|pour un mariage", "de boda|para una boda", "結婚式の|ウェディング", family="formal"),
    value("occasion.office", "office|work|business casual", "for the office", "fürs Büro|für die Arbeit",
        "de bureau|pour le travail", "de oficina|para el trabajo", "オフィスの|通勤の"),
    value("occasion.party", "party|night-out|New Year's Eve", "for a night out", "für die Party|zum Ausgehen",
        "de soirée|pour sortir", "de fiesta|para salir de noche", "パーティーの", family="formal"),
    value("occasion.everyday", "everyday|casual|errand-day", "for every day", "für jeden Tag|für den Alltag",
        "de tous les jours|esprit décontracté", "de diario|informal", "普段の|カジュアルな"),
    value("occasion.christmas", "Christmas|festive|holiday-season", "for the holidays", "zu Weihnachten|im Advent",
        "de Noël|pour les fêtes", "de Navidad|para las fiestas", "クリスマスの", look="christmas"),
    value("occasion.birthday", "birthday|first birthday", "for a birthday", "zum Geburtstag|für den Kindergeburtstag",
        "d'anniversaire|pour un anniversaire", "de cumpleaños|para un cumple", "誕生日の|バースデー", look="birthday"),
    value("occasion.travel", "travel|airport|carry-on", "for long flights", "für die Reise|für den Flug",
        "de voyage|pour l'avion", "de viaje|para el avión", "旅行用の"),
)

PLACES: tuple[Value, ...] = (
    value("place.portugal", "Portugal|Lisbon|Algarve", "in Portugal|around Lisbon", "in Portugal|an der Algarve",
        "au Portugal|à Lisbonne", "en Portugal|en Lisboa", "ポルトガルの|リスボンの", look="tiled", family="south"),
    value("place.italy", "Italy|Tuscany|Puglia", "in Italy|along the Amalfi coast", "in Italien|in der Toskana",
        "en Italie|en Toscane", "en Italia|en la Toscana", "イタリアの|トスカーナの", look="italian", family="south"),
    value("place.greece", "Greece|Greek islands|Crete", "in Greece|on the Cyclades", "in Griechenland|auf Kreta",
        "en Grèce|dans les Cyclades", "en Grecia|en Creta", "ギリシャの|クレタ島の", look="white-washed",
        family="south"),
    value("place.japan", "Japan|Kyoto|Tokyo", "in Japan|around Kyoto", "in Japan|in Kyoto", "au Japon|à Kyoto",
        "en Japón|en Kioto", "日本の|京都の", look="japanese"),
    value("place.scotland", "Scotland|Scottish Highlands|Isle of Skye", "in Scotland|around Loch Ness",
        "in Schottland|in den Highlands", "en Écosse|sur l'île de Skye", "en Escocia|en las Highlands",
        "スコットランドの", look="misty", family="north"),
    value("place.norway", "Norway|fjord|Lofoten", "in Norway|among the fjords", "in Norwegen|auf den Lofoten",
        "en Norvège|dans les fjords", "en Noruega|en los fiordos", "ノルウェーの|フィヨルドの", look="snowy",
        family="north"),
    value("place.alps", "Alps|Dolomites|alpine", "in the mountains", "in den Alpen|in den Dolomiten",
        "dans les Alpes|dans les Dolomites", "en los Alpes|en los Dolomitas", "アルプスの|山の", look="alpine"),
    value("place.mexico", "Mexico|Oaxaca|Yucatán", "in Mexico|along the Riviera Maya", "in Mexiko|auf Yucatán",
        "au Mexique|au Yucatán", "en México|en Oaxaca", "メキシコの", look="colorful"),
    value("place.morocco", "Morocco|Marrakech|Atlas", "in Morocco|in the medina", "in Marokko|in Marrakesch",
        "au Maroc|à Marrakech", "en Marruecos|en Marrakech", "モロッコの", look="desert"),
    value("place.california", "California|Big Sur|Pacific Coast", "in California|along Highway 1",
        "in Kalifornien|am Pazifik", "en Californie|à Big Sur", "en California|por la costa del Pacífico",
        "カリフォルニアの", look="coastal"),
)
