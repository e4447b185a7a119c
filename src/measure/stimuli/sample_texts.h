#pragma once

// Ordinary prose, written for this purpose. The first is the one whose norms count as typical; all
// of them, each longer than 64 tokens, are the samples of the sink metric.

namespace sinkref {

inline constexpr const char* sample_texts[] = {
    "The old harbour wakes before the sun does. Boats knock against the wooden piers, and the "
    "first fishermen carry their nets down the narrow steps, talking quietly about the weather. "
    "By seven the bakery on the corner has sold its bread, the school bus has passed twice, and "
    "a few visitors stand by the railing to watch gulls follow the ferry out of the bay. Nobody "
    "is in a hurry here; even the church bell seems to take its time between one hour and the "
    "next.",
    "A bridge is a promise made to people who have not yet arrived. Its engineers must guess how "
    "heavy their carts will be, how strong the spring floods will run and how long the stone will "
    "hold. They add a margin for what they do not know, and then a second margin for what they do "
    "not know that they do not know. Most of the time the river never tests either of them.",
    "To make the soup, cut two onions and fry them slowly in butter until they are soft but not "
    "brown. Add the potatoes, a little salt and enough water to cover everything, and let it "
    "simmer for twenty minutes. Take the pot from the fire, press half of the potatoes against "
    "its side with a spoon, and stir in the cream. Serve it with black pepper and yesterday's "
    "bread.",
    "In the second week of the survey the team found that the birds had moved. The nests on the "
    "northern cliff were empty, and the ringed adults were seen again some forty kilometres to the "
    "east, where the water was colder and the small fish had gone. Whether they will return next "
    "year depends less on the cliff itself than on currents that nobody can measure from the shore.",
    "She had meant to read only the first letter. There were thirty of them in the tin box, tied "
    "with a ribbon that had once been blue, and each was addressed in the same careful hand to a "
    "street that no longer existed. By the time the light failed she knew the names of all the "
    "writer's sisters, the price of coal in four different winters, and nothing at all about why "
    "the letters had been sent back.",
    "A good map leaves almost everything out. It does not show the colour of the houses or the "
    "smell of the market, and it turns a forest in which one may be lost for a week into a patch "
    "of green the size of a thumb. What remains is a set of distances and directions that can be "
    "trusted, and the traveller supplies the rest. Maps that try to show more are beautiful, and "
    "they stay at home.",
    "The council met on Tuesday to discuss the closing of the swimming pool. Repairs to the roof "
    "would cost more than the town spends on its library in three years, the treasurer explained, "
    "and the number of visitors has fallen every summer since the motorway was opened. Several "
    "parents answered that their children had learned to swim there, and that a town beside a "
    "lake could hardly afford not to teach them.",
    "When the first clocks were placed in towers, they had no faces and no hands. A bell was "
    "struck, and people counted. It was enough to know that an hour had ended; the question of "
    "how much of it was left had not yet occurred to anyone. Minutes came later, with the astronomers, and "
    "seconds later still, and with each of them the day was cut into smaller pieces that somebody "
    "could be late for.",
};

}  // namespace sinkref
