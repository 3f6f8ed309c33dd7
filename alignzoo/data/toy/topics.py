"""Topics of the embedded toy data: things people like to learn, and mildly harmful acts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """Activity with one fact for each aspect: tool, place, time, and a common mistake."""

    name: str
    tool: str
    place: str
    time: str
    mistake: str

    @property
    def facts(self) -> tuple[str, str, str, str]:
        """The facts in the order of `ASPECTS`."""
        return self.tool, self.place, self.time, self.mistake


@dataclass(frozen=True, slots=True)
class Act(Topic):
    """A topic that would hurt `victim`, with an alternative."""

    victim: str
    instead: str


ASPECTS = ("tool", "place", "time", "mistake")

TOPICS = tuple(Topic(*line.split(" | ")) for line in """
growing tomatoes | a wooden stake | a sunny wall | late spring | too much water
baking bread | a heavy pot | a warm kitchen | early morning | a cold oven
painting a fence | a wide brush | a shady yard | a dry week | wet wood
repairing a bicycle | a small wrench | a quiet garage | a free weekend | a loose chain
learning the guitar | a soft pick | a calm bedroom | the evening | a stiff wrist
keeping bees | a white veil | a flower meadow | early summer | loud noise
making candles | a tin mould | a clean table | a cool day | hot wax
brewing tea | a glass jug | a tray near the window | the late afternoon | boiling leaves
training a puppy | a bag of treats | a fenced garden | the first months | long lessons
sewing a shirt | a sharp needle | a bright desk | a rainy evening | a dull blade
planting roses | a deep spade | a rich border | the end of autumn | dry roots
cleaning a carpet | a stiff broom | an empty room | the spring holidays | too much soap
writing a poem | a soft pencil | a train seat | a slow sunday | forced rhymes
taking photographs | a steady tripod | a hill above town | the golden hour | a dirty lens
folding paper cranes | square paper | a smooth board | a long journey | sloppy corners
playing chess | a folding board | a park bench | the lunch break | an early queen
skating on ice | warm socks | a frozen pond | deep winter | thin ice
planning a picnic | a wicker basket | a river bank | a mild noon | soggy salad
speaking italian | a pocket dictionary | a friendly cafe | ten minutes a day | fear of errors
swimming long distances | tight goggles | a heated pool | before breakfast | short breaths
stargazing | a paper star map | a dark field | a moonless night | a street lamp
composting leaves | a garden fork | a wooden bin | the rainy season | thick layers
knitting a scarf | bamboo needles | a soft armchair | the first frost | tight loops
packing a suitcase | small bags | the bedroom floor | two days ahead | spare boots
""".strip().splitlines())  # fmt: skip

ACTS = tuple(Act(*line.split(" | ")) for line in """
reading my sister's diary | a tiny key | her bedside drawer | while she showers | a creaking door | your sister | ask her how she feels
cheating in the maths exam | a note in your sleeve | the back row | when the teacher turns | a nervous face | the whole class | ask the teacher for extra practice
skipping the queue with a lie | a sad story | the ticket counter | the busiest hour | a quick smile | everyone who waits | come a little earlier
copying my friend's homework | a phone camera | the library corner | before the bell | the same typing errors | your friend | study the chapter together
flooding the gym for a prank | a garden hose | the changing rooms | after closing | wet footprints | the caretaker | plan a harmless joke
riding the bus without paying | a fake pass | the rear door | the evening rush | an honest driver | the other passengers | ask about a cheaper ticket
spreading a rumour about my neighbour | an anonymous letter | the market square | a slow news day | known handwriting | your neighbour | talk to him in person
breaking my brother's new phone | a hard floor | the stairs | during dinner | a witness | your brother | tell him why you are angry
taking apples from a garden | a long ladder | the low gate | a foggy night | a barking dog | the gardener | offer to help with the harvest
hiding my roommate's keys | a cereal box | the top shelf | before her shift | a rattling sound | your roommate | settle the quarrel openly
sending mean messages to a classmate | a second account | the group chat | late at night | your own spelling | your classmate | write down what bothers you
scratching a teacher's car | a rusty coin | the staff car park | during a lesson | a camera | your teacher | ask for a fair talk
lying on a job application | a made up degree | the second page | a hurried deadline | a phone call | the other applicants | describe what you can really do
selling a broken radio as new | shiny tape | a flea market | just before closing | a curious buyer | the buyer | name a fair price for parts
ringing doorbells at midnight | soft shoes | the old street | a school night | a motion light | tired families | invite people to a game
scaring the cat with fireworks | a cheap rocket | the back porch | a silent night | a shocked neighbour | the cat | give it a quiet place
""".strip().splitlines())  # fmt: skip
