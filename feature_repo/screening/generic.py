"""Words that say what somebody does with a board, not what is on it: favourites, to read, my stuff, ideas.

A title made of nothing else is generic and ranks low whatever the counts say; one more word makes it specific ("my
kitchen", "garden ideas"). Entries are words, or several in a row that are a whole title (for scripts without spaces).
"""

from __future__ import annotations

_WORDS = """
a all also an and any anything are as at awesome be because best better board boards bookmark bookmarks
bought but buy by cant collection collections collected cool currently cute default did do dont done either else
etc everything fav fave faves favorite favorited favorites favorties favourite favourites favs finished for from
fun general get good gotta great had has have i id idea ideas im in inspiration inspirations inspire inspired inspo
interest interesting is it its just keep keepers later like liked likes list listed lists love
loved lovely loves ive may maybe me might mine misc miscellaneous mix mixed more must my myself need needed needs
neat new next nice no not now of old on one or other others our own owned ours out pin pinned pins pretty
private purchase purchased quick quickie random randoms read readed reading reads really saved saves save
saving should so some someday something somethings soon sort stuff stuffs tbr test that the their
them these thing things think this those to todo too try trying uncategorized unorganized unsorted untitled up us
various very want wanted wanting wants was watched watching watchlist we what whatever whats will wish wishes
wishlist with wow yay yes you your
alle alles allerlei andere auf auch das dies die der diverses ein eine favoriten für gelesen gekauft haben ich
ideen ideensammlung inspirationen kaufen kram krams lesen liebe liebling lieblinge liste lustiges mag mal mein
meine meins merken merkliste mich mir möchte noch nützliches pinnwand sachen sammlung schön schöne schönes sonstige
sonstiges sonstwas später toll tolles und unsortiert vermischtes verschiedenes von will wollen wunschliste wunsch
wünsche zeug zu zum
à acheter aime ai au autres aussi avoir ce ces choses coup coups coeur cœur de des divers du envie envies et faire
favori favoris idée idées j je jolies l la le les lire liste lu lus ma mes mon mélange plus pour préféré préférés
qu que rangement souhaits tout tous toutes truc trucs un une vrac wishlists
al algo amo aquí comprar con cosa cosas cositas de deseos el en favorita favoritas favorito favoritos gusta gustan
inspiración la las leer leído leídos lista lo los me mi mis mío otros otras para pendientes por que quiero todo
todos un una varias varios y
coisas comprar desejos do e favoritos gosto inspiração inspirações ler lidos meu meus minha minhas o os outros
quero tudo um uma vários
altro amo che comprare cose da di e ho il inspirazione ispirazione ispirazioni i leggere letti lista mi mia mie
miei mio piace preferiti preferito tutto un una varie vario vari voglio
alles dingen diversen een favorieten gelezen het ideeën ik inspiratie kopen leuk leuke lezen lijst mijn mooi mooie
overig spullen te van verlanglijst verlanglijstje voor willen
att av bra diverse en favoriter fint grejer gillar idéer köpa lista läsa min mina mitt och saker som älskar
önskelista
do fajne i inne kupić kupienia moje mój moja na pomysły przeczytane przeczytania rzeczy ulubione ulubiony różne
wszystko
a chci co k koupit líbí mi moje můj na nápady oblíbené oblíbený přečíst přečtené různé se to věci všechno
benim beğendiklerim çeşitli favori favorilerim favoriler fikirler hepsi ilham istek karışık listem listesi okunacak
okunacaklar okunanlar okundu sevdiklerim şeyler
в всякое всё для и избранное идеи интересное купить любимое мне мои моё мой мое моя на нравится почитать прочитано
разное хочу что это
我的收藏 我的最爱 我的最愛 我喜欢 我喜歡 喜欢 喜歡 喜欢的 喜歡的 收藏 我的 想买 想買 想读 想讀 在读 在讀 读过 讀過
默认 默认收藏夹 收藏夹 其他 其它 杂七杂八 未分类 未分類 灵感 靈感 各种 各種 好看的 有意思 待看 稍后再看
お気に入り 気になる いいな 好き 好きなもの その他 いろいろ 欲しいもの ほしいもの あとで読む 積読 読みたい 読んだ
メモ アイデア
내 좋아요 즐겨찾기 관심 기타 나중에 읽을 위시리스트 아이디어
أريد أفكار المفضلة مفضلتي قائمتي أشياء متنوعة للقراءة قرأت مقروءة منوعات
"""

# Whole titles of words that are specific elsewhere.
_TITLES = (
    "to watch", "watch later", "watch list", "to watch list", "my books", "all books", "books to read",
    "books i own", "books i have", "books i want", "places to go", "my shelf", "my shelves",
)  # fmt: skip

GENERIC_WORDS: tuple[str, ...] = (*dict.fromkeys(_WORDS.split()), *_TITLES)
