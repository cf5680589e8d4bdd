"""The media that sounding stamps are made of: which file of which Debian package shows and sounds as what.

No media are part of this project. `apt-get install tuxpaint-stamps-default mate-backgrounds lomiri-wallpapers-16.04`
puts them into the folders below; the generator copies each file's name, hash and licence into the data set's record.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STAMPS = Path("/usr/share/tuxpaint/stamps")
BACKGROUNDS = Path("/usr/share/backgrounds")
PACKAGES = "tuxpaint-stamps-default mate-backgrounds lomiri-wallpapers-16.04"
STAMPS_LICENCE = "GPL-2 (Bill Kendrick and contributors)"


@dataclass(frozen=True)
class StampFiles:
    """A class of sounding object: photo cut-out and recording below the stamps' folder, without suffix.

    Attributes:
        name: of the class.
        path: of the photo and of the recording.
        more_photos: of the same class, shown like `path`'s own.
        test_photo: another photo of the same class, kept for the test split.
        test_sound: another recording of the same class, kept for the test split.
    """

    name: str
    path: str
    test_photo: str | None = None
    test_sound: str | None = None
    more_photos: tuple[str, ...] = ()


_ANIMALS, _MAMMALS, _MUSIC = "animals", "animals/mammals", "hobbies/music"
SOUNDING = (
    StampFiles("frog", f"{_ANIMALS}/amphibians/frog", f"{_ANIMALS}/amphibians/frog-1"),
    StampFiles("blackbird", f"{_ANIMALS}/birds/blackbird"),
    StampFiles("crow", f"{_ANIMALS}/birds/crow"),
    StampFiles("cuckoo", f"{_ANIMALS}/birds/cuckoo"),
    StampFiles("duck", f"{_ANIMALS}/birds/duck"),
    StampFiles("gander", f"{_ANIMALS}/birds/gander"),
    StampFiles("owl", f"{_ANIMALS}/birds/owl"),
    StampFiles(
        "penguin",
        f"{_ANIMALS}/birds/penguin",
        f"{_ANIMALS}/birds/magellanic_penguin",
        more_photos=(f"{_ANIMALS}/birds/little-penguin",),
    ),
    StampFiles("rooster", f"{_ANIMALS}/birds/rooster"),
    StampFiles("seagull", f"{_ANIMALS}/birds/seagull"),
    StampFiles("turkey", f"{_ANIMALS}/birds/turkey"),
    StampFiles("bee", f"{_ANIMALS}/insects/bee"),
    StampFiles("grasshopper", f"{_ANIMALS}/insects/grasshopper"),
    StampFiles("chimpanzee", f"{_MAMMALS}/apes/chimp"),
    StampFiles("gorilla", f"{_MAMMALS}/apes/gorilla"),
    StampFiles("dolphin", f"{_MAMMALS}/aquatic/dolphin"),
    StampFiles("whale", f"{_MAMMALS}/aquatic/whale"),
    StampFiles("bear", f"{_MAMMALS}/bears/bear", f"{_MAMMALS}/bears/european-bear"),
    StampFiles("bull", f"{_MAMMALS}/bovines/bull"),
    StampFiles("cow", f"{_MAMMALS}/bovines/cow", f"{_MAMMALS}/bovines/cow_white", f"{_MAMMALS}/bovines/cow_white"),
    StampFiles("sheep", f"{_MAMMALS}/bovines/sheep"),
    StampFiles("lion", f"{_MAMMALS}/cats/lion", f"{_MAMMALS}/cats/lion-2"),
    StampFiles("tiger", f"{_MAMMALS}/cats/tiger", f"{_MAMMALS}/cats/tiger_sumatran"),
    StampFiles("dog", f"{_MAMMALS}/dogs/dog"),
    StampFiles("elephant", f"{_MAMMALS}/elephant"),
    StampFiles("donkey", f"{_MAMMALS}/equines/donkey", f"{_MAMMALS}/equines/donkey_eating"),
    StampFiles("horse", f"{_MAMMALS}/equines/horse"),
    StampFiles("pig", f"{_MAMMALS}/pig", f"{_MAMMALS}/pig_golden", f"{_MAMMALS}/pig_golden"),
    StampFiles("drum kit", f"{_MUSIC}/percussion/drumkit"),
    StampFiles("cello", f"{_MUSIC}/string/cello"),
    StampFiles("violin", f"{_MUSIC}/string/violin"),
    StampFiles("bassoon", f"{_MUSIC}/wind/bassoon"),
    StampFiles("fire engine", "vehicles/emergency/firetruck"),
)

# Objects that never sound, animals and instruments among them, so that to be one is not to sound.
SILENT = (
    f"{_ANIMALS}/birds/pink_flamingo",
    f"{_ANIMALS}/birds/ostrich",
    f"{_ANIMALS}/birds/pigeon",
    f"{_ANIMALS}/fish/lionfish",
    f"{_ANIMALS}/fish/stripedfish",
    f"{_MAMMALS}/aquatic/otter",
    f"{_MAMMALS}/hedgehog",
    f"{_MAMMALS}/rhino_black",
    f"{_MAMMALS}/wildboar",
    f"{_ANIMALS}/marsupials/kangaroo",
    f"{_MUSIC}/brass/trumpet",
    f"{_MUSIC}/string/guitar_classical",
    "food/fruit/orange_seville",
    "food/vegetables/broccoli",
    "plants/flowers/rose",
    "plants/mushrooms/cep",
    "sports/soccer",
    "vehicles/construction/dumper",
    "vehicles/garbagetruck",
    "vehicles/wheel_tractor",
)

# Photos that stand in for sounding and silent objects alike in training and, others, in validation, so that a photo
# which was never seen need not be passed over: what no known object in the picture can have sounded, it may have.
# Another photo of a test photo's own animal is not among them.
STRANGERS = (
    f"{_ANIMALS}/birds/adelaide-rosella",
    f"{_ANIMALS}/birds/albino_peahen",
    f"{_ANIMALS}/birds/chicken_profile",
    f"{_ANIMALS}/birds/crowned_crane",
    f"{_ANIMALS}/birds/drake",
    f"{_ANIMALS}/birds/guineafowl",
    f"{_ANIMALS}/birds/helmeted_guineafowl",
    f"{_ANIMALS}/birds/hen",
    f"{_ANIMALS}/birds/heron_greatblue",
    f"{_ANIMALS}/birds/heron_greatblue_flying",
    f"{_ANIMALS}/birds/lark",
    f"{_ANIMALS}/birds/magpie",
    f"{_ANIMALS}/birds/nandou",
    f"{_ANIMALS}/birds/peacock",
    f"{_ANIMALS}/birds/pelican",
    f"{_ANIMALS}/birds/quetzal",
    f"{_ANIMALS}/birds/rainbow-lorikeet",
    f"{_ANIMALS}/birds/silver-gull",
    f"{_ANIMALS}/birds/tucan",
    f"{_ANIMALS}/birds/vulture",
    f"{_ANIMALS}/fish/bluegroper",
    f"{_ANIMALS}/fish/butterflyfish",
    f"{_ANIMALS}/fish/clownfish",
    f"{_ANIMALS}/fish/coraltrout",
    f"{_ANIMALS}/fish/dolphinfish",
    f"{_ANIMALS}/fish/lobster",
    f"{_ANIMALS}/fish/moonwrasse",
    f"{_ANIMALS}/fish/seahorse",
    f"{_ANIMALS}/fish/shrimp",
    f"{_ANIMALS}/insects/Brown_slug",
    f"{_ANIMALS}/insects/Woodlouse",
    f"{_ANIMALS}/insects/fly",
    f"{_ANIMALS}/insects/hornet",
    f"{_ANIMALS}/insects/hoverfly",
    f"{_ANIMALS}/insects/mantis",
    f"{_ANIMALS}/insects/xanthia",
    f"{_ANIMALS}/lizards/iguana",
    f"{_MAMMALS}/apes/tamarin_emperor",
    f"{_MAMMALS}/aquatic/orca",
    f"{_MAMMALS}/aquatic/sea_lion",
    f"{_MAMMALS}/badger",
    f"{_MAMMALS}/bovines/bison",
    f"{_MAMMALS}/bovines/gnu-baby-stand",
    f"{_MAMMALS}/bovines/gnu-baby",
    f"{_MAMMALS}/bovines/gnu-sitting",
    f"{_MAMMALS}/bovines/gnu-stand",
    f"{_MAMMALS}/bovines/goat",
    f"{_MAMMALS}/bovines/indian_blackbuck",
    f"{_MAMMALS}/bovines/mountaingoat",
    f"{_MAMMALS}/bovines/ram",
    f"{_MAMMALS}/bovines/sheep_lamb",
    f"{_MAMMALS}/bovines/yak",
    f"{_MAMMALS}/bovines/zebu",
    f"{_MAMMALS}/camel/camel",
    f"{_MAMMALS}/camel/dromedary",
    f"{_MAMMALS}/deer/caribou",
    f"{_MAMMALS}/deer/deer",
    f"{_MAMMALS}/deer/doe",
    f"{_MAMMALS}/deer/wapiti",
    f"{_MAMMALS}/dogs/dingo",
    f"{_MAMMALS}/dogs/fox",
    f"{_MAMMALS}/echidna",
    f"{_MAMMALS}/equines/zebra",
    f"{_MAMMALS}/ferret",
    f"{_MAMMALS}/giraffe",
    f"{_MAMMALS}/hippopotamus",
    f"{_MAMMALS}/rabbit_little",
    f"{_MAMMALS}/rodents/beaver",
    f"{_MAMMALS}/rodents/capybara",
    f"{_MAMMALS}/rodents/marmot",
    f"{_MAMMALS}/rodents/mouse",
    f"{_MAMMALS}/rodents/rabbit-2",
    f"{_MAMMALS}/rodents/rabbit",
    f"{_MAMMALS}/rodents/rat",
    f"{_MAMMALS}/rodents/squirrel",
    f"{_ANIMALS}/marsupials/koala",
    f"{_ANIMALS}/marsupials/wombat",
    f"{_ANIMALS}/shellfish/abalone",
    f"{_ANIMALS}/shellfish/murray-mussel",
    f"{_MUSIC}/string/guitar_electric",
    f"{_MUSIC}/percussion/cymbal_crash",
    f"{_MUSIC}/percussion/drum_tomtom_floor",
    "vehicles/emergency/sedan_police",
    "vehicles/flight/planes/747",
    "vehicles/masstransit/green_korean_bus",
    "vehicles/auto/beetle",
    "vehicles/auto/truck",
    "vehicles/cycle/pink_tricycle",
    "vehicles/ship/chineseJunk",
)

# File below the backgrounds' folder -> licence, as the packages' copyright files state it.
BACKGROUND_LICENCES = {
    "Bridge_by_Sander_Klootwijk.jpg": "CC-BY-SA-4.0",
    "Picture_0B_by_freespace.jpg": "CC-BY-4.0",
    "Picture_1A_by_freespace.jpg": "CC-BY-4.0",
    "Wine_by_Jakkub_Mede.jpg": "CC-BY-4.0",
    "aitzgorri_by_Aitzol_Berasategi.jpg": "CC-BY-4.0",
    "analogpattern_by_Peter_Nerlich.jpg": "CC-BY-SA-4.0",
    "free_by_Peter_Nerlich.jpg": "CC-BY-SA-4.0",
    "greentock_by_Peter_Nerlich.jpg": "CC-BY-SA-4.0",
    "life_by_Aitzol_Berasategi.jpg": "CC-BY-4.0",
    "picosdeeuropa_by_Aitzol_Berasategi.jpg": "CC-BY-4.0",
    "seeding_by_Clements_Engelhardt.jpg": "CC0-1.0",
    "sunset_by_Aitzol_Berasategi.jpg": "CC-BY-4.0",
    "umang_by_Abhishek_Mudgal.jpg": "CC-BY-4.0",
    "mate/abstract/Flow.png": "GPL-2+",
    "mate/abstract/Gulp.png": "GPL-2+",
    "mate/nature/Aqua.jpg": "GPL-2+",
    "mate/nature/Blinds.jpg": "GPL-2+",
    "mate/nature/Dune.jpg": "GPL-2+",
    "mate/nature/FreshFlower.jpg": "GPL-2+",
    "mate/nature/Garden.jpg": "GPL-2+",
    "mate/nature/GreenMeadow.jpg": "GPL-2+",
    "mate/nature/RainDrops.jpg": "GPL-2+",
    "mate/nature/Storm.jpg": "GPL-2+",
    "mate/nature/TwoWings.jpg": "GPL-2+",
    "mate/nature/Wood.jpg": "GPL-2+",
    "mate/nature/YellowFlower.jpg": "GPL-2+",
}
