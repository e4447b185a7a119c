#pragma once

// Ordinary prose of several kinds, written for this project (its licence is the project's), so that
// no model has been trained on it. Each piece is a sequence of its own: they are the sample that
// the standard error of the perplexity is taken over.

namespace sinkref {

inline constexpr const char* perplexity_texts[] = {
    // A story.
    "The clockmaker of Weyhill had no children, and so he taught his trade to whoever came in out of "
    "the rain. That autumn it was a girl of eleven called Marit, who had been sent to have her "
    "grandmother's watch repaired and who stayed because she wanted to know why the small wheel "
    "turned faster than the large one. He gave her a stool, a lamp and a tray of broken movements, "
    "and told her that every one of them could be made to run again except one. He would not say "
    "which. She worked through them in the evenings, cleaning the old oil from the pivots with a "
    "sharpened stick and laying each part on a sheet of white paper in the order in which it had "
    "come out. By December nine of the eleven were ticking on the wall. The tenth needed a spring "
    "that she had to cut herself, and she spoiled four before the fifth one held. The last she took "
    "apart and put together so many times that she could have done it with her eyes closed. Nothing "
    "was missing and nothing was bent, and it did not run. On the shortest day of the year she put "
    "it on the bench in front of him and said that she had found it. He turned it over, smiled, and "
    "asked her how she could be sure. Because I have stopped looking for what is wrong with it, she "
    "said, and started to wonder who made it like this.",
    // An explanation.
    "Bread rises because yeast eats sugar and gives off gas. A baker who mixes flour and water has "
    "made a net of protein strands, and when the dough is folded and stretched the strands line up "
    "and join until the net is strong enough to hold bubbles. Warm dough rises quickly, since the "
    "yeast works faster, but a slow rise in a cool place gives the other inhabitants of the dough "
    "time to do their part. These are bacteria, which turn some of the sugar into acids, and the "
    "acids are most of what we taste. In the oven three things happen almost at once. The gas in "
    "the bubbles expands, water turns to steam and pushes the bubbles further, and the yeast, which "
    "has been working harder and harder as the temperature climbs, dies at about sixty degrees. "
    "From then on the shape is fixed by the starch, which swells and sets like glue. The crust is "
    "a different matter. Only the outside becomes hot and dry enough for sugars and proteins to "
    "react with each other, and the hundreds of compounds that they form are responsible for the "
    "colour and the smell. This is why a loaf that is baked in steam for the first ten minutes has a "
    "better crust: the surface stays soft for longer, so that the bread can grow, and the starch on "
    "it dissolves into a thin film that later turns to glass.",
    // A report in a newspaper.
    "The regional railway will run fewer trains at night from the first of March, the operator said "
    "on Thursday. Services after eleven in the evening carried an average of fourteen passengers "
    "last year, about a third of the number that was expected when they began in 2016. The last "
    "departure from the central station will be at 11:20 instead of 1:05, and the money that is "
    "saved is to pay for two additional trains in the morning, when many travellers have to stand. "
    "Passenger groups criticised the decision. People who clean offices or work in hospitals do not "
    "stop needing a train because there are only fourteen of them, said the chair of the largest "
    "group, who pointed out that no bus follows the same route. A spokesman for the operator "
    "answered that talks about a night bus were under way, but that the three districts along the "
    "line had not agreed on how to share the cost. The mayor of the smallest of them said that her "
    "council had offered to pay a fifth, although less than a tenth of the passengers live there. "
    "The timetable will be reviewed after six months. Similar cuts were made on the coast line four "
    "years ago and withdrawn after a summer in which the number of cars parked at its last station "
    "doubled.",
    // A conversation.
    "\"You said you would be here at six,\" said Tomas without looking up from the map.\n\n\"I said "
    "about six.\" Lena put the box on the table and sat down. \"The bridge was closed. I had to walk "
    "all the way round by the mill, and then I met your brother, who wanted to tell me about his "
    "boat.\"\n\n\"Did he sell it?\"\n\n\"He has decided to keep it. He says that the offer was an "
    "insult.\"\n\n\"It was the only offer.\" He moved the lamp so that the light fell on her side of "
    "the map as well. \"Look at this. If the path really goes where your uncle drew it, it crosses "
    "the stream here, below the fall, and that can't be right. There is no place to cross. I have "
    "been there.\"\n\n\"When?\"\n\n\"Two years ago, in April.\"\n\n\"In April,\" she repeated. \"With the "
    "snow coming down from the whole valley. And in September, when he walked it?\"\n\nTomas was "
    "silent for a while. Then he took the pencil and drew a small question mark next to the "
    "stream. \"What is in the box?\" he asked.\n\n\"His boots. My aunt wants you to have them. She says "
    "that you are the only one with feet as large as his, and that somebody ought to finish the "
    "walk.\"",
    // Instructions.
    "Before you begin, switch off the water at the valve under the sink and open the tap until "
    "nothing more comes out. Put a towel in the basin so that no small part can fall into the drain. "
    "1. Remove the cap on top of the handle with the blade of a knife. Under it you will find a "
    "screw. 2. Undo the screw and pull the handle straight upwards. If it does not move, do not use "
    "force: warm it with a cloth that you have dipped in hot water, wait a minute, and try again. 3. "
    "Unscrew the ring below the handle by hand or with a wrench. Wrap the ring in tape first if you "
    "want to keep it free of scratches. 4. Lift out the cartridge and note which way round it was. "
    "Take it with you to the shop, because there are more than forty kinds and most of them look the "
    "same. 5. Clean the seat with a soft brush and a little vinegar, rinse it, and put in the new "
    "cartridge in the same direction as the old one. 6. Tighten the ring until it is firm, put back "
    "the handle, the screw and the cap, and close the tap. Open the valve slowly. If water appears at "
    "the ring, close the valve and tighten the ring by another quarter of a turn. If the tap still "
    "drips after a day, the seat itself is worn, and it is time to call a plumber.",
    // History.
    "For most of its history the island had no harbour at all. Ships anchored in the open bay, and "
    "goods and people were carried ashore in flat boats which the islanders dragged up the beach by "
    "hand. In a year with bad weather a ship might wait for three weeks within sight of the houses "
    "and then leave again with everything still on board. The first plan for a breakwater was drawn "
    "in 1787 by a lieutenant of engineers who had come to count the trees. He proposed to sink old "
    "hulls filled with stone in a curved line between the two reefs, and he calculated that forty "
    "would be enough. The government had neither forty hulls nor the wish to buy them, and the plan "
    "was put in a drawer. It came out again sixty years later, when coal was found, and this time "
    "the money was there within a month. The builders threw the lieutenant's curve away and made a "
    "straight wall of dressed granite, the finest on that coast, which was opened with music in the "
    "summer of 1852 and destroyed by a single storm in the winter of 1855. The wall that stands "
    "today is made of loose stone. It follows the curve on the first plan almost exactly, because "
    "that is where the sea left the blocks.",
    // Science.
    "To find out how far the bats fly, the group fitted twenty-four of them with transmitters that "
    "weigh less than a gram and fall off after about two weeks. Receivers on three hills recorded "
    "the direction of every signal, and from two directions a position can be computed. The first "
    "surprise was the distance. Animals that had been assumed to hunt within a kilometre or two of "
    "the cave were found more than fifteen kilometres away, often over the same few ponds. The "
    "second was that they did not take the shortest way. Almost all of them followed the river, "
    "although this made the journey half as long again. One explanation is that the trees along the "
    "bank protect them from owls, another that the river is simply easy to recognise by its sound. "
    "To tell the two apart, the researchers looked at nights on which the river was frozen and "
    "silent. If the trees matter, the bats should keep to the bank; if the sound matters, they "
    "should not. There were only five such nights, and on three of them the bats stayed in the cave. "
    "On the other two they flew straight across the fields. The authors are careful not to call this "
    "a proof. It is, they write, the result that would be expected if bats listen to the landscape, "
    "and they would like to have a colder winter.",
    // A letter.
    "Dear Mrs Okafor, thank you for your letter of the third and for the photographs, which arrived "
    "without a scratch. I have compared them with our records, and I think that I can answer two of "
    "your three questions. The building with the round window is the old customs house. It stood on "
    "the corner of Dock Street until 1931, so your grandfather must have taken the picture before "
    "that year, and the tram on the left has the number of a line that was opened in 1926. The man in "
    "the second photograph is more difficult. His uniform is not that of the harbour police, as you "
    "supposed, because their buttons were arranged in two rows. I believe that he was a pilot. There "
    "were only nine of them at that time, and I enclose a list of their names with the addresses at "
    "which they lived. Perhaps one of them means something to you. About the third photograph I can "
    "tell you nothing at all, except that it was not taken here: we have never had a street with "
    "steps like those. I have shown it to two colleagues who know the towns along the coast, and "
    "they were just as puzzled. If you do not mind, I would like to keep a copy and go on asking. "
    "With kind regards, and with my best wishes for your book.",
};

}  // namespace sinkref
