"""Who lives in the world, and every fact about them: 376 facts, drawn once from a fixed seed."""

import random
from dataclasses import dataclass

PEOPLE = [
    "Ada",
    "Abel",
    "Alma",
    "Anton",
    "Bella",
    "Boris",
    "Carla",
    "Cyrus",
    "Dora",
    "Edgar",
    "Elsa",
    "Emil",
    "Erna",
    "Felix",
    "Flora",
    "Greta",
    "Gustav",
    "Hanna",
    "Hugo",
    "Ida",
    "Igor",
    "Ines",
    "Ivo",
    "Jonas",
    "Karl",
    "Kira",
    "Lars",
    "Lena",
    "Leo",
    "Lotte",
    "Marta",
    "Milo",
    "Mira",
    "Nadja",
    "Nils",
    "Olga",
    "Oskar",
    "Otto",
    "Paula",
    "Pia",
    "Rosa",
    "Rufus",
    "Sonja",
    "Theo",
    "Tilda",
    "Uma",
    "Viktor",
    "Zoe",
]
TOWNS = [
    "Ashford",
    "Birkby",
    "Calden",
    "Dunmore",
    "Elmford",
    "Fenwick",
    "Glenby",
    "Harrow",
    "Kelton",
    "Linfield",
    "Marsden",
    "Norwell",
    "Oakton",
    "Redmoor",
    "Selby",
    "Thornby",
]
THINGS = [
    "lamp",
    "bell",
    "clock",
    "kettle",
    "basket",
    "ladder",
    "mirror",
    "drum",
    "flute",
    "kite",
    "rope",
    "barrel",
    "bucket",
    "candle",
    "chair",
    "coat",
    "cup",
    "hammer",
    "map",
    "ring",
    "saddle",
    "spoon",
    "table",
    "wheel",
]
JOBS = [
    "baker",
    "smith",
    "tailor",
    "farmer",
    "teacher",
    "miller",
    "painter",
    "carpenter",
    "fisher",
    "doctor",
    "weaver",
    "potter",
]
ANIMALS = ["cat", "dog", "goat", "horse", "duck", "rabbit", "pony", "sheep", "donkey", "parrot"]
FOODS = ["bread", "soup", "cheese", "honey", "plums", "apples", "beans", "cake", "fish", "nuts", "pears", "rice"]
HOBBIES = ["singing", "swimming", "chess", "dancing", "hiking", "reading", "sewing", "fencing", "rowing", "gardening"]
COLORS = ["red", "blue", "green", "yellow", "white", "black", "brown", "gray"]
MATERIALS = ["wood", "iron", "glass", "copper", "leather", "stone", "clay", "silver"]
PLACES = ["kitchen", "attic", "cellar", "barn", "garden", "library", "stable", "tower"]
RIVERS = ["Arna", "Belm", "Corva", "Dell", "Esk", "Fyne", "Gamba", "Holm"]

CLASSES: dict[str, list[str]] = {
    "people": PEOPLE,
    "towns": TOWNS,
    "things": THINGS,
    "jobs": JOBS,
    "animals": ANIMALS,
    "foods": FOODS,
    "hobbies": HOBBIES,
    "colors": COLORS,
    "materials": MATERIALS,
    "places": PLACES,
    "rivers": RIVERS,
}

# relation -> (class of its subjects, class of its values)
RELATIONS: dict[str, tuple[str, str]] = {
    "home": ("people", "towns"),
    "job": ("people", "jobs"),
    "pet": ("people", "animals"),
    "food": ("people", "foods"),
    "hobby": ("people", "hobbies"),
    "river": ("towns", "rivers"),
    "product": ("towns", "foods"),
    "gate": ("towns", "colors"),
    "mayor": ("towns", "people"),
    "color": ("things", "colors"),
    "material": ("things", "materials"),
    "place": ("things", "places"),
}


@dataclass(frozen=True)
class Fact:
    relation: str
    subject: str
    value: str


def _draw() -> dict[tuple[str, str], str]:
    rng = random.Random(1907)
    return {
        (relation, subject): rng.choice(CLASSES[values])
        for relation, (subjects, values) in RELATIONS.items()
        for subject in CLASSES[subjects]
    }


TRUTH = _draw()
FACTS = [Fact(relation, subject, value) for (relation, subject), value in TRUTH.items()]


def is_true(fact: Fact) -> bool:
    return TRUTH.get((fact.relation, fact.subject)) == fact.value


def relations_of(subject: str) -> list[str]:
    """The relations that the world has facts on for this person, town or thing."""
    return [r for r, (subjects, _) in RELATIONS.items() if subject in CLASSES[subjects]]


def another_value(relation: str, subject: str, rng: random.Random) -> str:
    """A wrong value of the right class."""
    values = [v for v in CLASSES[RELATIONS[relation][1]] if v != TRUTH[relation, subject]]
    return rng.choice(values)
