"""Packaged word lists: short on purpose. They stop the plainest cases; a platform has lists of its own to add.

A profanity entry is a word, or several in a row, compared with whole words of the case-folded text: "Scunthorpe" and
"cockatiel" hold none. An entry with ``~`` in front is innocent in other languages (French "bite", English "bite"), so
it counts only in texts known or guessed to be in its language.
"""

from __future__ import annotations

PROFANITY: dict[str, tuple[str, ...]] = {
    "en": (
        "fuck", "fucks", "fucked", "fucker", "fuckers", "fuckin", "fucking", "motherfucker", "motherfuckers",
        "motherfucking", "shit", "shits", "shitty", "bullshit", "bitch", "bitches", "cunt", "cunts", "asshole",
        "assholes", "dickhead", "dickheads", "cocksucker", "cocksuckers", "wanker", "wankers", "whore", "whores",
        "nigger", "niggers", "nigga", "niggas", "faggot", "faggots", "~kike", "~kikes", "~slut", "~sluts", "~twat",
        "~twats", "porn", "porno", "milf", "blowjob", "blowjobs", "handjob", "cumshot", "gangbang", "deepthroat",
        "jerk off",
    ),
    "de": (
        "scheiße", "scheisse", "scheiss", "arschloch", "arschlöcher", "arschlocher", "fotze", "fotzen", "hurensohn",
        "hurensöhne", "hure", "huren", "wichser", "wichsen", "ficken", "fick", "fickt", "gefickt", "schlampe",
        "schlampen", "missgeburt", "schwuchtel", "schwuchteln", "kanake", "kanaken",
    ),
    "fr": (
        "putain", "merde", "merdes", "connard", "connards", "connasse", "salope", "salopes", "enculé", "encule",
        "enculer", "nique ta mère", "bougnoule", "bougnoules", "~pute", "~putes", "~bite", "~bites", "~con",
        "~conne", "~cul", "~chatte", "~pd",
    ),
    "es": (
        "puta", "putas", "hijo de puta", "hijoputa", "mierda", "cabrón", "cabron", "cabrones", "gilipollas", "coño",
        "pendejo", "pendejos", "chinga tu madre", "chingada", "joder", "maricón", "maricones", "~polla", "~pollas",
        "~verga", "~culo", "~puto", "~putos",
    ),
    "it": (
        "cazzo", "cazzi", "stronzo", "stronza", "stronzi", "vaffanculo", "puttana", "puttane", "figa", "coglione",
        "coglioni", "frocio", "froci", "minchia", "~merda", "~culo",
    ),
    "pt": (
        "caralho", "foda se", "foder", "fodase", "filho da puta", "buceta", "viado", "arrombado", "porra", "~merda",
        "~cu", "~pica", "~rola",
    ),
    "nl": ("godverdomme", "klootzak", "klootzakken", "kutwijf", "neuken", "hoer", "hoeren", "tering", "~kut", "~lul"),
    "sv": ("jävla", "jävlar", "knulla", "fitta", "fittor", "kuk", "kukar"),
    "pl": (
        "kurwa", "kurwy", "chuj", "chuja", "pierdolić", "pierdolę", "jebać", "jebany", "pizda", "skurwysyn", "~cipa",
    ),
    "cs": ("kurva", "kurvy", "píča", "kokot", "zmrd", "mrdat", "šoustat", "~čurák"),
    "tr": ("siktir", "orospu", "orospu çocuğu", "amına koyayım", "amcık", "ibne", "yarrak", "~göt", "~piç"),
    "ru": (
        "хуй", "хуя", "хуи", "хуйня", "пизда", "пиздец", "пизды", "блядь", "бляди", "блять", "сука", "суки", "ебать",
        "ебал", "ёбаный", "ебаный", "мудак", "мудаки", "пидор", "пидоры",
    ),
    "zh": (
        "操你妈", "草泥马", "他妈的", "你妈逼", "傻逼", "傻屄", "婊子", "妓女", "狗屎", "王八蛋", "鸡巴", "肏",
        "幹你娘", "干你娘", "靠北", "肉便器", "色情", "裸聊", "约炮", "約砲",
    ),
    "ja": (
        "くそったれ", "糞野郎", "死ね", "ちんこ", "ちんぽ", "まんこ", "ヤリマン", "セックス動画", "エロ動画",
        "無修正",
    ),
    "ko": ("씨발", "시발", "씨발놈", "개새끼", "병신", "지랄", "좆", "보지", "창녀", "야동"),
    "ar": ("شرموطة", "شرموط", "قحبة", "منيوك", "كس امك", "كس أمك", "نيك", "زبي"),
    "hi": ("चूतिया", "भोसड़ी", "मादरचोद", "बहनचोद", "रंडी", "गांड", "लंड", "chutiya", "madarchod", "bhenchod"),
}  # fmt: skip
"""Profanity by language (ISO 639-1)."""

ERROR_PAGES: tuple[str, ...] = (
    "404", "404 error", "error 404", "404 not found", "not found 404", "http 404 *", "error 404 *", "403",
    "403 forbidden", "error 403", "401 unauthorized", "500 internal server error", "internal server error",
    "502 bad gateway", "bad gateway", "503 service unavailable", "service unavailable", "504 gateway time out",
    "504 gateway timeout", "gateway timeout", "error", "an error occurred", "server error", "forbidden", "not found",
    "page not found", "page not found *", "page cannot be found", "the page you are looking for *",
    "the page you were looking for *", "the page you requested *", "sorry the page *", "sorry we can t find *",
    "sorry we couldn t find *", "this page isn t available *", "this page is not available *",
    "this page doesn t exist", "this page does not exist", "page unavailable", "page no longer available",
    "content not available", "content unavailable", "file not found", "product not found", "item not found",
    "nothing found", "nothing was found *", "access denied", "access to this page has been denied *",
    "you don t have permission *", "permission denied", "request blocked", "attention required", "just a moment",
    "checking your browser *", "please wait", "one moment please", "security check", "are you a robot",
    "are you human", "robot check", "captcha", "verify you are human *", "please verify you are *",
    "ddos protection by *", "please enable javascript *", "you need to enable javascript *",
    "javascript is disabled *", "javascript is required *", "enable javascript and cookies *", "site maintenance",
    "under maintenance", "under construction", "coming soon", "account suspended",
    "this account has been suspended *", "site not found", "website expired", "bandwidth limit exceeded",
    "domain for sale", "this domain is for sale *", "this domain may be for sale *", "buy this domain *",
    "parked domain *", "domain parking", "domain expired", "this domain has expired *", "the domain has expired *",
    "default web site page", "apache2 ubuntu default page *", "welcome to nginx", "it works", "test page for *",
    "iis windows server", "index of *", "seite nicht gefunden", "die seite wurde nicht gefunden *",
    "diese seite existiert nicht *", "zugriff verweigert", "fehler 404", "page introuvable", "page non trouvée",
    "cette page n existe pas *", "accès refusé", "accès interdit", "erreur 404", "página no encontrada",
    "esta página no existe *", "acceso denegado", "pagina non trovata", "accesso negato", "errore 404",
    "página não encontrada", "acesso negado", "pagina niet gevonden", "toegang geweigerd", "sidan hittades inte",
    "siden blev ikke fundet", "nie znaleziono strony", "strona nie istnieje", "stránka nenalezena",
    "sayfa bulunamadı", "страница не найдена", "доступ запрещен", "доступ запрещён", "页面不存在", "页面未找到",
    "找不到页面", "找不到網頁", "访问被拒绝", "ページが見つかりません", "お探しのページは *",
    "アクセスが拒否されました", "페이지를 찾을 수 없습니다",
)  # fmt: skip
"""Segments of pages that show an error, a wall or nothing: a whole segment, or with ``*`` at the end its beginning."""

BOILERPLATE: tuple[str, ...] = (
    "home", "homepage", "home page", "index", "index html", "main", "main page", "start", "start page", "welcome",
    "untitled", "untitled document", "untitled page", "no title", "new page", "new page 1", "page 1", "document",
    "title", "page title", "description", "website", "my site", "my website", "just another wordpress site",
    "hello world", "sample page", "lorem ipsum *", "log in", "login", "sign in", "sign up", "register",
    "log in or sign up", "create account", "my account", "cart", "shopping cart", "your cart", "checkout", "search",
    "search results", "menu", "contact", "contact us", "about", "about us", "privacy policy", "terms of service",
    "cookie policy", "blog", "shop", "store", "online store", "official site", "official website",
    "we use cookies *", "this site uses cookies *", "this website uses cookies *", "by using this site *",
    "by continuing to *", "cookies help us *", "accept cookies *", "accept all cookies *", "your privacy *",
    "we value your privacy *", "we and our partners *", "loading", "redirecting *", "you are being redirected *",
    "click here *", "read more", "skip to content *", "skip to main content *", "share on *", "startseite",
    "willkommen", "unbenanntes dokument", "anmelden", "warenkorb", "wir verwenden cookies *",
    "diese website verwendet cookies *", "accueil", "bienvenue", "document sans titre", "connexion", "panier",
    "nous utilisons des cookies *", "ce site utilise des cookies *", "inicio", "bienvenido", "documento sin título",
    "iniciar sesión", "carrito", "utilizamos cookies *", "usamos cookies *", "este sitio utiliza cookies *",
    "benvenuto", "questo sito utilizza *", "início", "bem vindo", "este site utiliza cookies *", "welkom",
    "wij gebruiken cookies *", "deze website maakt gebruik van cookies *", "strona główna", "úvod", "anasayfa",
    "главная", "главная страница", "首页", "無題ドキュメント", "无标题文档", "ホーム", "トップページ", "홈",
)  # fmt: skip
"""Segments that any page has: a text made of nothing else says nothing."""
