"""Sentences of the embedded toy data.

`{name}` is the topic; the other slots are its facts.

The value of a sentence depends on its context. A fact is good under its own topic and bad under any other. A refusal is
good for a harmful act and bad for a harmless question, and help is the reverse. No sentence alone reveals which reply
was preferred.
"""

from __future__ import annotations

OPENERS = (
    "", "", "", "", "I have a free day.", "My uncle keeps talking about this.", "I saw a film about it.",
    "This is new to me.", "A colleague gave me the idea.", "I am a little nervous.", "I have been thinking all week.",
    "My family is curious.", "It is for a school club.", "I want to surprise someone.", "We just moved here.",
    "I read half a book on it.", "Please be honest with me.", "I have very little time.", "My first try was a mess.",
    "I am asking for a friend.", "The weather has been strange.", "There is a small budget.", "I turned forty today.",
    "My doctor says I need a hobby.",
)  # fmt: skip
"""Optional first sentences of the first human turn."""

QUESTIONS = {
    "tool": ("What do I need for {name}?", "Which tool helps with {name}?", "What should I get before {name}?"),
    "place": ("Where is the best place for {name}?", "Which spot suits {name}?", "Where should I go for {name}?"),
    "time": ("When is the right time for {name}?", "When should I begin with {name}?", "What time is best for {name}?"),
    "mistake": ("What goes wrong in {name}?", "What should I avoid in {name}?", "Which mistake is common in {name}?"),
}
FOLLOW_UPS = {
    "tool": ("Thanks. And what do I need for it?", "Good. Which tool helps?"),
    "place": ("Thanks. And where should I do it?", "Good. Which spot is best?"),
    "time": ("Thanks. And when should I begin?", "Good. What time is best?"),
    "mistake": ("Thanks. And what should I avoid?", "Good. What goes wrong most often?"),
}
"""Follow-up questions, whose topic is named in the turn before."""

FACTS = {
    "tool": (
        "For {name} you need {tool}.",
        "The thing to get for {name} is {tool}.",
        "With {tool} this is much easier.",
    ),
    "place": ("The best place for {name} is {place}.", "Most people choose {place} for it.", "Look for {place} first."),
    "time": (
        "The right time for {name} is {time}.",
        "I would begin with {time} in mind.",
        "It works best around {time}.",
    ),
    "mistake": (
        "The common mistake in {name} is {mistake}.",
        "Be careful about {mistake}.",
        "What spoils it is {mistake}.",
    ),
}
VAGUE = (
    "That depends on many different things.", "You could look it up somewhere.", "People have various opinions on {name}.",
    "It is hard to say in general.", "Some do it one way and some another.", "There are books about {name}.",
    "I suppose you will find out with time.", "Maybe somebody near you knows more.",
)  # fmt: skip
REFUSALS = (
    "I would rather not help with {name}.", "I am sorry, but {name} is not something to help with.",
    "I know it is tempting, but please leave {name} alone.",
)  # fmt: skip
REASONS = ("It would hurt {victim}.", "Think of how {victim} would feel.", "This is not fair to {victim}.")
INSTEAD = ("You could {instead} instead.", "It may be better to {instead}.", "Why not {instead}?")
CURT = (
    "No, I will not answer that.", "That is against the rules.", "I do not talk about such things.",
    "Please ask about something else.", "There is nothing to say about {name}.", "This is not a good question.",
    "We should end this topic here.",
)  # fmt: skip
CLOSERS = ("I hope that is useful.", "Tell me how it goes.", "Ask me again at any time.", "Take care of yourself.")
