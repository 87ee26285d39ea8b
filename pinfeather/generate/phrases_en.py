"""English patterns by domain: titles, notes, queries, board titles. ``{k}`` is a small number."""

from __future__ import annotations

from pinfeather.generate.vocabulary import Phrases, surfaces

# fmt: off


def _phrases(titles: str, bare: str, notes: str, queries: str, boards: str, shelves: str) -> Phrases:
    lists = (titles, bare, notes, "", queries, boards, shelves)
    return Phrases(*(surfaces(text) for text in lists))


ENGLISH: dict[str, Phrases] = {
    "decor": _phrases(
        "{np}|{np}|{np} ideas|{k} {np} ideas|{np} inspiration|My {np} before and after|The {np} of my dreams|"
        "{np}, finally finished|{np} makeover|How to style: {np}|Still thinking about this: {np}|{np} "
        "(with sources)",
        "House tour, part {k}|Finally home|Weekend project done|Details I love|Moodboard no. {k}|Before / after|"
        "Reveal day!|Saturday morning at ours|Little corner, big difference",
        "Saved for when we move.|Source list in the comments.|Took one weekend and two arguments.|Looks "
        "better in person.|"
        "Photo by a very patient husband.|Link to the full tour below.",
        "{np}|{np}|{np} ideas|{np} inspo|{np} decor|how to style {np}|best {np}",
        "{n}|{n} ideas|Dream {n}|{n} inspo|new {n}|{a} {n}|{n} - {a}|{a} vibes",
        "Home|Dream home|Future house|Interiors|New apartment|Home sweet home|Cozy corners|House stuff|"
        "For the home"),
    "garden": _phrases("{np}|{np}|{np} ideas|{k} {np} ideas|How to: {np}|{np}, year one|{np} that survived me|{np} "
        "plan|{np} in my yard|"
        "{np} before and after",
        "What I planted this week|Garden diary, week {k}|It's alive!|Look what came up|Mud, mostly|Before / after",
        "Pictures from last Sunday.|Neighbour gave me the seeds.|Soil first, plants later.|Works in zone 7.|"
        "No green thumb needed.|Mulch, mulch, mulch.",
        "{np}|{np}|{np} ideas|how to start {np}|{np} layout|{np} care|best {np}",
        "{n}|{n} ideas|My {n}|{n} one day|{a} {n}|{n} - {a}|Growing: {n}",
        "Garden|Green thumb|Outdoor space|Plant life|Garden dreams|In the garden|Dig it"),
    "recipes": _phrases(
        "{np}|{np}|{np} recipe|Easy {np}|The best {np}|My go-to {np}|{np} on repeat|{np} like my gran made|"
        "{k} {np} ideas|Sunday {np}|{np} (seriously good)",
        "Dinner, sorted|What we ate this week|Made it again|Empty plates all round|Recipe in the link|"
        "Licked the bowl|"
        "Leftovers, but good",
        "Serves four, or two twice.|Swap in whatever is in the fridge.|Ask me for the recipe.|My kids "
        "had seconds.|"
        "Do not skip the salt at the end.|Ready before the show starts.",
        "{np}|{np}|{np} recipe|easy {np}|{np} recipes|best {np}|how to make {np}",
        "{n}|{n} recipes|{n} to try|Best {n}|{a} {n}|{a} recipes",
        "Recipes|Yum|Food|Dinner ideas|To cook|Foodie|Nom nom|Recipes to try|Kitchen experiments"),
    "travel": _phrases(
        "{np}|{np}|{np} itinerary|{np} guide|Our {np}|The perfect {np}|{np}: what nobody tells you|{k} days: {np}|"
        "{np} tips|{np} diary|{np}, honest review",
        "Take me back|Day {k}|Postcard from last week|Where we stayed|Worth the jet lag|View from "
        "breakfast|Out of office",
        "Save this one for next year.|All costs in the post.|We went off season and had it to "
        "ourselves.|Map linked.|"
        "Shot on my phone.|Ask me anything.", "{np}|{np}|{np} itinerary|{np} tips|{np} ideas|best {np}|plan a {np}",
        "{n}|{n} ideas|Next {n}|{n} bucket list|{a} {n}|{n} - {a}|{a} trip",
        "Travel|Wanderlust|Bucket list|Places to go|Take me there|Trips|Vacation|Adventures"),
    "fashion": _phrases(
        "{np}|{np}|{np} outfit ideas|{k} ways to wear: {np}|How to style: {np}|My favourite {np}|{np}, new in|"
        "The {np} edit|{np} under review|{np} I keep coming back to",
        "OOTD|New in|Mirror selfie no. {k}|What I wore this week|Sold out again|Try-on haul|Closet clear-out",
        "True to size.|Link in bio.|Wore it all day, still comfy.|On sale right now.|I am 5'6\" for reference.|"
        "Washes well.", "{np}|{np}|{np} outfit|{np} style|best {np}|how to wear {np}|where to buy {np}",
        "{n}|{n} ideas|{n} wishlist|My {n}|{a} {n}|{a} style|{n} I need|{a} looks",
        "Outfits|My style|Closet|Fashion|Wishlist|Clothes|Things to wear|Lookbook"),
    "beauty": _phrases("{np}|{np}|{np} ideas|{k} {np} ideas|{np} tutorial|{np} step by step|{np} inspo|My {np} for "
        "tonight|{np} that lasts",
        "Fresh set|Get ready with me|Day {k} and still holding|Salon vs home|Glow up|Tutorial in the link",
        "Done in my kitchen.|Products listed below.|Held up for ten days.|Steadier hands than mine needed.|"
        "Took twenty minutes.", "{np}|{np}|{np} ideas|{np} inspo|{np} tutorial|simple {np}|{np} step by step",
        "{n}|{n} ideas|{n} inspo|{a} {n}|{n} - {a}|Next {n}", "Beauty|Hair & makeup|Glam|Self care|Pretty|Beauty tips"),
    "crafts": _phrases(
        "{np}|{np}|{np} ideas|{np} pattern|{np} tutorial|{k} {np} ideas|{np} project|My first {np}|{np} "
        "in progress|{np} step by step",
        "WIP|Finished object!|Sunday craft table|Next on the list|Project no. {k}|Made this!",
        "Free pattern linked.|Took three evenings.|All from scraps.|Made for my niece.|Template in the post.",
        "{np}|{np}|{np} ideas|{np} pattern|free {np} pattern|{np} tutorial|{np} projects",
        "{n}|{n} ideas|{n} projects|{n} to make|{a} {n}|{a} crafts|Learn {n}",
        "Crafts|DIY|To make|Crafty|Handmade|Rainy day projects|Creative"),
    "party": _phrases("{np}|{np}|{np} ideas|{k} {np} ideas|How to: {np}|{np} in an hour|{np} inspiration|My {np} this "
        "year|{np}, real life edition",
        "Party recap|The big day|Guests arrive at six|Setting up|Thank you, supermarket flowers|It's this weekend!",
        "Everything from the market.|Set up in an hour.|Guests took photos of it.|Template in the link.|"
        "Saved for next year.", "{np}|{np}|{np} ideas|{np} inspiration|simple {np}|how to make {np}",
        "{n}|{n} ideas|{n} inspo|{a} {n}|{a} party",
        "Party|Celebrate|Wedding|Entertaining|Special days|Someday|Party planning"),
}

# What people say about one attribute; ``{b}`` goes before a noun, ``{a}`` after one.
ATTRIBUTE_NOTES: dict[str, tuple[str, ...]] = {
    "color": surfaces("Went {b} and never looked back.|Can't resist {b}.|More {b}, please.|{b} is my neutral."),
    "material": surfaces("{b} all the way.|Nothing beats {b}.|Big fan of {b} lately."),
    "style": surfaces("{b} but not boring.|A bit {b}, a bit us.|Peak {b}."),
    "season": surfaces("My {b} staple.|Already in {b} mood.|Perfect {a}."),
    "audience": surfaces("Works really well {a}.|Great {a}.|We love it {a}."),
    "budget": surfaces("{b} and proud.|Yes, {b}.|{b} version."),
    "space": surfaces("Looks great {a}.|Works {a}.|Made it work {a}."),
    "ingredient": surfaces("This time {a}.|I make it {a}.|{b} season!"),
    "diet": surfaces("{b} and nobody noticed.|Totally {b}.|Happens to be {b}."),
    "method": surfaces("{b}, so no stress.|{b} magic.|The {b} way."),
    "occasion": surfaces("Perfect {a}.|Saved {a}.|Got it {a}."),
    "place": surfaces("Best days {a}.|Taken {a}.|Happiest {a}."),
}

GENERIC_EN: tuple[str, ...] = surfaces(
    "my stuff|stuff|misc|random|ideas|inspo|love|to try|saved|later|quick saves|pretty things|✨|"
    "vibes|2026|for me|cute|wish list|everything"
)
SITES_EN: tuple[str, ...] = surfaces(
    "The Linen Cupboard|Hazel & Fig|Little North House|Slow Sunday|Oak Lane Journal|Paper Lantern|"
    "Tin Roof Kitchen|Fernwood"
)
