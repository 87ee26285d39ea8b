"""Topics of fashion, beauty, crafts and celebrations."""

from __future__ import annotations

from pinfeather.generate.vocabulary import Topic, topic

# fmt: off

_HUES = "color: sage olive navy sky terracotta mustard blush burgundy lilac white beige black"
_WEAR = f"{_HUES}; season: spring summer autumn winter; budget: cheap luxury; occasion: wedding office party everyday"
_BODY = "audience: petite plus over50"

FASHION: tuple[Topic, ...] = (
    topic("fashion.body.dress", "dress|gown|frock", "Kleid|Abendkleid", "robe|petite robe", "vestido|vestidito",
        "ワンピース|ドレス", scenes="a woman in a {look} dress|a {look} dress on a hanger",
        notes="It has pockets!|Wore it three weekends in a row.|Size down, it runs big.",
        dims=f"{_WEAR}; material: linen cotton silk denim velvet; {_BODY}; style: boho floral minimal cottage"),
    topic("fashion.body.sweater", "sweater|jumper|cardigan|knitwear", "Pullover|Strickjacke", "pull|gilet",
        "jersey|cárdigan|suéter", "セーター|カーディガン",
        scenes="a woman wearing a {look} sweater|a stack of {look} sweaters on a chair",
        notes="Does not itch, I promise.|Stolen from my boyfriend, never going back.",
        dims=f"{_HUES}; material: wool cotton; season: spring autumn winter; audience: men petite plus "
        f"over50; style: street classic"
        " graphic"),
    topic("fashion.body.coat", "coat|jacket|trench|parka", "Mantel|Jacke", "manteau|veste", "abrigo|chaqueta",
        "コート|ジャケット", scenes="a person in a {look} coat on a street|a woman wearing a {look} jacket and jeans",
        notes="Room for a chunky knit underneath.|Ten years old and still gets compliments.",
        dims=f"{_HUES}; material: wool leather denim; season: spring autumn winter; audience: men "
        f"petite plus over50;"
        " style: street classic minimal; budget: cheap luxury"),
    topic("fashion.body.trousers", "trousers|pants|jeans", "Hose|Jeans", "pantalon|jean", "pantalón|vaqueros",
        "パンツ|ズボン", scenes="a person wearing {look} pants and a white shirt|a pair of {look} pants on a chair",
        notes="Hem them to the shoe you will wear.|High waist, wide leg, happy me.",
        dims=f"{_HUES}; material: linen cotton denim leather; audience: men petite plus over50; style: "
        f"street classic"
        " graphic; occasion: office party everyday travel"),
    topic("fashion.foot.sneakers", "sneakers|trainers|running shoes", "Sneaker|Turnschuhe", "baskets|tennis",
        "zapatillas|tenis", "スニーカー|運動靴",
        scenes="a pair of {look} sneakers|a person wearing {look} shoes and jeans",
        notes="Broke them in on a 20k day, no blisters.|Goes with literally everything.",
        dims=f"{_HUES}; material: leather cotton denim; audience: men kids over50; occasion: office "
        f"everyday travel;"
        " style: street classic midcentury; budget: cheap luxury"),
    topic("fashion.foot.boots", "boots|ankle boots|booties", "Stiefel|Stiefeletten", "bottes|bottines",
        "botas|botines", "ブーツ", scenes="a pair of {look} boots|a woman in {look} boots and a dress",
        notes="Resoled twice, still going.|Good grip, which I tested by accident.",
        dims=f"{_HUES}; material: leather velvet; season: autumn winter spring; audience: men kids "
        f"plus; occasion: office"
        " party everyday; budget: cheap luxury"),
    topic("fashion.extra.bag", "handbag|tote|purse|shoulder bag", "Handtasche|Umhängetasche", "sac à main|cabas",
        "bolso|bandolera", "バッグ|トート", scenes="a {look} bag on a table|a woman holding a {look} purse",
        notes="Fits a laptop and a baguette.|The strap is adjustable, finally.",
        dims=f"{_HUES}; material: leather linen rattan denim cotton; occasion: wedding office party "
        f"everyday travel;"
        " budget: cheap luxury diy; style: minimal boho classic"),
    topic("fashion.extra.jewelry", "earrings|jewellery|necklace", "Ohrringe|Schmuck|Kette",
        "boucles d'oreilles|bijoux|collier", "pendientes|joyas|collar", "ピアス|アクセサリー",
        scenes="a pair of {look} earrings on a table|a woman wearing a {look} necklace",
        notes="Light enough to forget about.|Layer the short one with the long one.",
        dims="material: gold silver; style: boho minimal midcentury floral; occasion: wedding office "
        "party everyday christmas;"
        " budget: cheap luxury diy"),
    topic("fashion.look.outfit", "outfit|look|capsule wardrobe", "Outfit|Look|Garderobe", "tenue|look|garde-robe",
        "conjunto|look|armario cápsula", "コーデ|着こなし",
        scenes="a woman in a {look} outfit taking a photo in a mirror|{look} clothes laid out on a bed",
        notes="Three pieces, one week of combinations.|Shop your own closet first.",
        dims=f"{_WEAR}; audience: men petite plus over50; style: scandi street classic minimal boho"),
)

BEAUTY: tuple[Topic, ...] = (
    topic("beauty.face.nails", "nails|manicure|nail art", "Nägel|Maniküre", "ongles|manucure", "uñas|manicura",
        "ネイル|マニキュア", scenes="a hand with {look} nails|a close up of {look} nail polish",
        notes="Two thin coats, then hands off.|Press-ons, ten minutes, nobody noticed.",
        dims=f"{_HUES}; style: floral minimal graphic; season: spring summer autumn winter; occasion: "
        f"wedding party office christmas"),
    topic("beauty.face.makeup", "makeup|eye look|lipstick", "Make-up|Augen-Make-up", "maquillage|rouge à lèvres",
        "maquillaje|labial", "メイク|アイメイク",
        scenes="a woman with {look} makeup|a close up of an eye with {look} eyeshadow",
        notes="Tap, do not rub.|Lasted through happy tears and cake.",
        dims="color: terracotta blush burgundy lilac beige black; occasion: wedding office party "
        "everyday; audience: over50"
        " beginner; budget: cheap luxury; season: summer winter"),
    topic("beauty.hair.hairstyle", "hairstyle|updo|braids|haircut", "Frisur|Hochsteckfrisur",
        "coiffure|chignon|tresses", "peinado|recogido|trenzas", "ヘアスタイル|まとめ髪",
        scenes="the back of a woman's head with {look} braids|a woman with short {look} hair",
        notes="Second-day hair works best.|Six pins and a prayer.",
        dims="occasion: wedding office party everyday; audience: men kids over50 beginner; style: boho "
        "classic floral;"
        " season: summer winter; method: quick"),
)

CRAFTS: tuple[Topic, ...] = (
    topic("crafts.yarn.crochet", "crochet|amigurumi|granny squares", "Häkeln|Häkelprojekt",
        "crochet|ouvrage au crochet", "ganchillo|crochet", "かぎ針編み|編みぐるみ",
        scenes="a {look} crocheted blanket on a chair|a small {look} crocheted toy",
        notes="Frogged it twice, worth it.|Uses up all the leftover balls.",
        dims=f"{_HUES}; audience: beginner kids; style: floral boho graphic; occasion: christmas "
        f"birthday; material: cotton wool"),
    topic("crafts.yarn.knitting", "knitting|knit pattern|hand-knits", "Stricken|Strickmuster",
        "tricot|modèle de tricot", "punto|patrón de punto", "棒針編み|編み物",
        scenes="{look} yarn and knitting needles|a person knitting a {look} scarf",
        notes="Good for train rides and bad TV.|Block it, always block it.",
        dims=f"{_HUES}; audience: beginner kids men; season: autumn winter; material: wool cotton; "
        f"occasion: christmas"),
    topic("crafts.thread.embroidery", "embroidery|hand stitching|cross stitch", "Sticken|Stickerei",
        "broderie|point de croix", "bordado|punto de cruz", "刺繍|クロスステッチ",
        scenes="a {look} embroidery hoop with flowers|a hand holding a hoop with {look} thread",
        notes="Three strands, tight hoop, podcast.|French knots are not scary. Much.",
        dims=f"{_HUES}; style: floral minimal cottage; audience: beginner kids; occasion: christmas "
        f"wedding; material: linen cotton denim"),
    topic("crafts.paint.watercolor", "watercolour|watercolor painting|aquarelle", "Aquarell|Aquarellmalerei",
        "aquarelle|peinture à l'eau", "acuarela|pintura con acuarelas", "水彩画|水彩",
        scenes="a {look} painting of leaves on paper|a set of paint and a {look} painting",
        notes="Wet on wet and let go.|Cheap paper is why it buckles.",
        dims=f"{_HUES}; style: floral minimal; audience: beginner kids; season: spring autumn winter; "
        f"occasion: christmas birthday"),
    topic("crafts.paint.pottery", "pottery|ceramics|clay bowls", "Töpfern|Keramik", "poterie|céramique",
        "cerámica|alfarería", "陶芸|器づくり", scenes="a {look} bowl on a table|hands making a {look} clay pot",
        notes="Wonky on purpose, obviously.|Lost half the kiln, kept the best half.",
        dims=f"{_HUES}; style: japandi boho minimal maximal graphic; audience: beginner kids; occasion: "
        f"christmas; budget: cheap diy luxury"),
)

PARTY: tuple[Topic, ...] = (
    topic("party.table.tablescape", "table setting|tablescape|place settings", "Tischdeko|gedeckter Tisch",
        "déco de table|table dressée", "decoración de mesa|mesa puesta", "テーブルコーディネート|食卓の飾り",
        scenes="a table set with {look} plates and candles|a {look} table with flowers and glasses",
        notes="Fruit instead of flowers, eaten after.|Candles at three heights.",
        dims=f"{_HUES}; occasion: wedding christmas birthday; season: spring summer autumn winter; "
        f"style: boho cottage minimal;"
        " budget: cheap luxury diy"),
    topic("party.table.bouquet", "bouquet|flower arrangement|centerpiece", "Blumenstrauß|Gesteck",
        "bouquet|composition florale", "ramo|centro de flores", "ブーケ|フラワーアレンジメント",
        scenes="a bouquet of {look} flowers in a vase|a woman holding {look} flowers",
        notes="Strip the lower leaves, cut at an angle.|Supermarket stems, nobody knew.",
        dims=f"{_HUES}; occasion: wedding christmas birthday everyday; season: spring summer autumn "
        f"winter; style: boho cottage"
        " minimal; budget: cheap luxury diy"),
    topic("party.fun.decor", "party decor|balloon arch|garland", "Partydeko|Girlande", "déco de fête|guirlande",
        "decoración de fiesta|guirnalda", "パーティー飾り|ガーランド",
        scenes="{look} balloons on a wall|a {look} garland above a table with cake",
        notes="Blown up with a bike pump, arms intact.|Reused from last year, shh.",
        dims=f"{_HUES}; occasion: wedding birthday christmas party; audience: kids; budget: cheap "
        f"luxury diy; style: boho floral maximal"),
    topic("party.fun.gift", "gift ideas|presents|gift wrapping", "Geschenkideen|Geschenke verpacken",
        "idées cadeaux|paquet cadeau", "ideas de regalo|envolver regalos", "プレゼント|ラッピング",
        scenes="a gift wrapped in {look} paper|{look} boxes with ribbons on a table",
        notes="Brown paper and a sprig of rosemary.|He actually uses it, a first.",
        dims="occasion: christmas birthday wedding; audience: men kids over50 two; budget: cheap luxury "
        "diy; style: minimal floral"),
)
