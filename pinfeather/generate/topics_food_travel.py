"""Topics of recipes and travel."""

from __future__ import annotations

from pinfeather.generate.vocabulary import Topic, topic

# fmt: off

_DIET = "diet: vegan vegetarian glutenfree lowcarb protein comfort"
_METHOD = "method: onepot slow airfryer quick prep"
_WHO = "audience: kids family two"
_TRIP = "audience: kids two solo pets; season: spring summer autumn winter; budget: cheap luxury"
_WHERE = "place: portugal italy greece japan scotland norway alps mexico morocco california"

RECIPES: tuple[Topic, ...] = (
    topic("recipes.pot.soup", "soup|broth|chowder|bisque", "Suppe|Cremesuppe", "soupe|velouté", "sopa|crema",
        "スープ|ポタージュ", scenes="a bowl of {look} soup with bread|a bowl of {look} soup on a wooden table",
        notes="Better on day two.|Blend half, leave half chunky.|Squeeze of lime right at the end.",
        dims=f"ingredient: lentil pumpkin tomato mushroom chicken spinach; {_DIET}; {_METHOD}; season: "
        f"autumn winter"),
    topic("recipes.pot.curry", "curry|masala|korma", "Curry|Currypfanne", "curry|cari", "curry|guiso al curry",
        "カレー", scenes="a bowl of {look} curry with rice|a pan of {look} curry with herbs",
        notes="Bloom the spices first, always.|Coconut milk in, heat down, walk away.",
        dims=f"ingredient: lentil chickpea pumpkin chicken prawn spinach; {_DIET}; {_METHOD}; {_WHO}"),
    topic("recipes.pot.stew", "stew|casserole|chili", "Eintopf|Schmortopf", "ragoût|mijoté", "guiso|estofado",
        "煮込み|シチュー", scenes="a pot of {look} stew on a stove|a bowl of {look} stew with a spoon",
        notes="Three hours and the house smells like Sunday.|Mop it up with anything crusty.",
        dims=f"ingredient: lentil chickpea mushroom chicken tomato; {_DIET}; {_METHOD}; season: autumn winter"),
    topic("recipes.plate.pasta", "pasta|noodles|spaghetti|linguine", "Nudeln|Pasta", "pâtes|spaghettis",
        "pasta|espaguetis", "パスタ|スパゲッティ",
        scenes="a plate of {look} pasta with cheese|a bowl of noodles with {look} sauce",
        notes="Save a mug of the cooking water.|My kids ask for it by name.",
        dims=f"ingredient: tomato mushroom salmon prawn courgette spinach feta lemon; {_DIET}; {_METHOD}; {_WHO}"),
    topic("recipes.plate.salad", "salad|slaw|grain bowl", "Salat|Bowl", "salade|salade composée", "ensalada|bol",
        "サラダ", scenes="a bowl of {look} salad with herbs|a plate of salad with {look/greens} and dressing",
        notes="Dress it while still warm.|Holds up in a lunch box till three.",
        dims=f"ingredient: chickpea lentil chicken salmon feta courgette mango; {_DIET}; season: spring "
        f"summer winter;"
        " method: nobake quick prep"),
    topic("recipes.plate.tray", "traybake|roast dinner|oven dinner", "Ofengericht|Auflauf", "gratin|plat au four",
        "asado al horno|gratinado", "グラタン|オーブン焼き",
        scenes="a baking dish of {look/potatoes} and vegetables|a tray of roasted {look/vegetables} with herbs",
        notes="Chop, toss, forget for forty minutes.|Crispy corners are the cook's share.",
        dims=f"ingredient: chicken salmon pumpkin courgette feta mushroom; {_DIET}; {_WHO}; budget: cheap"),
    topic("recipes.oven.cake", "cake|loaf cake|sponge|torte", "Kuchen|Rührkuchen|Torte", "gâteau|cake",
        "pastel|bizcocho|tarta", "ケーキ|パウンドケーキ",
        scenes="a slice of {look} cake on a plate|a {look} cake on a cake stand",
        notes="One bowl, no mixer.|Stays moist for days, allegedly.|Tap the tin twice before baking.",
        dims=f"ingredient: lemon chocolate berry apple banana nut matcha; {_DIET}; method: nobake "
        f"quick; occasion: birthday"
        " christmas everyday"),
    topic("recipes.oven.cookies", "cookies|biscuits|shortbread", "Kekse|Plätzchen", "biscuits|cookies|sablés",
        "galletas|pastas", "クッキー|ビスケット", scenes="a plate of {look} cookies|{look} cookies on a baking rack",
        notes="Chill the dough or regret it.|Pull them out while the middle looks raw.",
        dims=f"ingredient: chocolate oat nut lemon matcha; {_DIET}; occasion: christmas birthday "
        f"everyday; audience: kids"),
    topic("recipes.oven.bread", "bread|rolls|focaccia|sourdough", "Brot|Brötchen", "pain|petits pains",
        "pan|panecillos", "パン|フォカッチャ",
        scenes="a loaf of {look} bread on a cutting board|{look} bread rolls in a basket",
        notes="Wet dough, hot pot, patience.|Four folds, half an hour apart.",
        dims="ingredient: oat nut tomato pumpkin banana; diet: vegan glutenfree lowcarb protein; "
        "method: slow quick prep;"
        " audience: beginner"),
    topic("recipes.morning.oats", "overnight oats|porridge|breakfast bowl", "Porridge|Frühstücksbowl",
        "porridge|bol petit-déjeuner", "gachas|bol de desayuno", "オーバーナイトオーツ|朝食ボウル",
        scenes="a jar of oats with {look/seeds} on top|a bowl of porridge with {look/fruit} and seeds",
        notes="Shake, fridge, sleep.|Same breakfast three years running.",
        dims=f"ingredient: berry apple banana chocolate nut mango; {_DIET}; method: nobake prep quick; "
        f"audience: kids"),
    topic("recipes.morning.pancakes", "pancakes|crêpes|waffles", "Pfannkuchen|Waffeln", "crêpes|pancakes|gaufres",
        "tortitas|gofres", "パンケーキ|ワッフル",
        scenes="a stack of pancakes with {look/butter} and syrup|a plate of {look} waffles with cream",
        notes="First one is for the cook.|Let the batter sit while the coffee brews.",
        dims=f"ingredient: berry banana apple chocolate oat lemon; {_DIET}; audience: kids family two; "
        f"method: quick prep"),
    topic("recipes.glass.smoothie", "smoothie|shake|juice", "Smoothie|Shake", "smoothie|jus", "batido|licuado",
        "スムージー|ジュース", scenes="a glass of {look} smoothie with a straw|two glasses of {look} juice on a table",
        notes="Frozen fruit instead of ice.|Tastes like holiday, counts as greens.",
        dims="ingredient: berry banana mango spinach matcha oat; diet: vegan protein lowcarb; season: "
        "summer winter;"
        " audience: kids; method: quick prep"),
)

TRAVEL: tuple[Topic, ...] = (
    topic("travel.stay.city", "city break|weekend getaway|long weekend", "Städtereise|Kurztrip",
        "week-end en ville|city trip", "escapada urbana|fin de semana", "週末旅行|街歩き",
        scenes="a {look} street with cafes and people|a view of a {look} city from above",
        notes="Skip the hop-on bus, just walk.|Book the rooftop for your last evening.", dims=f"{_WHERE}; {_TRIP}"),
    topic("travel.stay.beach", "beach vacation|seaside holiday|coastal escape", "Strandurlaub|Badeurlaub",
        "vacances à la mer|séjour plage", "vacaciones de playa|escapada a la costa", "ビーチ旅行|海辺の休日",
        scenes="a {look} beach with clear water|two chairs on a {look} beach at sunset",
        notes="Go left at the chapel, the second cove is empty.|Bring water shoes, trust me.",
        dims="place: portugal italy greece mexico morocco california; audience: kids two solo pets; "
        "season: summer winter"
        " autumn; budget: cheap luxury"),
    topic("travel.stay.cabin", "cabin stay|cottage retreat|chalet", "Hüttenurlaub|Ferienhaus",
        "chalet|séjour en cabane", "cabaña rural|casa rural", "コテージ|山小屋ステイ",
        scenes="a {look} cabin in the woods|a {look} house by a lake with mountains",
        notes="No signal, wood stove, perfect.|Hot tub under the stars was a bit much. A good much.",
        dims=f"place: scotland norway alps japan california; {_TRIP}"),
    topic("travel.move.road", "road trip|scenic drive|campervan route", "Roadtrip|Rundreise",
        "road trip|itinéraire en voiture", "viaje por carretera|ruta en coche", "ドライブ旅行|ロードトリップ",
        scenes="a car on a {look} road with mountains|a van parked near a {look} coast",
        notes="Nine days, 1,100 km, two speeding tickets.|Download the maps before the pass.",
        dims=f"{_WHERE}; {_TRIP}"),
    topic("travel.move.train", "train trip|rail journey|interrail", "Zugreise|Bahnreise",
        "voyage en train|itinéraire en train", "viaje en tren|ruta en tren", "鉄道の旅|列車旅行",
        scenes="a train going through {look} mountains|a view of {look} hills from a train window",
        notes="Sit on the right-hand side for the lake.|Sleeper car at least once in your life.",
        dims=f"place: italy scotland norway alps japan portugal; {_TRIP}"),
    topic("travel.wild.hike", "hike|trail|trekking", "Wanderung|Wanderweg|Trekking", "randonnée|sentier",
        "senderismo|ruta a pie", "ハイキング|トレッキング",
        scenes="a person walking on a {look} trail|a hiker looking over {look} hills",
        notes="Start before seven, thank me later.|Hut cake at the top, as is tradition.", dims=f"{_WHERE}; {_TRIP}"),
    topic("travel.wild.camping", "camping|campsite|tent trip", "Camping|Zelten", "camping|bivouac", "acampada|camping",
        "キャンプ|テント泊", scenes="a tent in a {look} field at night|a campfire next to a tent near {look} trees",
        notes="Pitch on the east side for morning sun.|Coffee first, poles later.", dims=f"{_WHERE}; {_TRIP}"),
    topic("travel.plan.packing", "packing list|carry-on packing|travel checklist", "Packliste|Reisecheckliste",
        "liste de valise|quoi emporter", "lista de equipaje|qué llevar en la maleta", "持ち物リスト|パッキング",
        scenes="an open suitcase with folded clothes|clothes and a camera laid out on a bed",
        notes="Rolled, not folded.|One bag, eleven days, zero regrets.",
        dims=f"{_WHERE}; audience: kids solo two; season: summer winter autumn; occasion: travel wedding"),
)
